// What does a ranking say? Groups of response numbers, the best first; numbers in one group are tied.

export class Ranking {
  constructor(count, groups = []) {
    this.count = count;
    this.groups = groups.map((group) => [...group]);
  }

  /** The group's index that holds a response; -1 where it is not ranked. */
  placeOf(number) {
    return this.groups.findIndex((group) => group.includes(number));
  }

  isTied(number) {
    return (this.groups[this.placeOf(number)]?.length ?? 0) > 1;
  }

  get unranked() {
    return Array.from({ length: this.count }, (_, index) => index + 1).filter((number) => this.placeOf(number) < 0);
  }

  get isComplete() {
    return this.unranked.length === 0;
  }

  /** Puts a response behind all that are ranked. */
  next(number) {
    this.insert(number, this.groups.length);
  }

  /** Ties a response to the last group; the first one of all begins it. */
  tie(number) {
    const last = this.groups.filter((group) => group.some((other) => other !== number)).at(-1);
    this.remove(number);
    if (last) last.push(number);
    else this.groups.push([number]);
  }

  /** Makes a response a group of its own, before the group that is now at `index`. */
  insert(number, index) {
    const before = this.groups[index];
    if (before?.length === 1 && before[0] === number) return;
    this.remove(number);
    this.groups.splice(before ? this.groups.indexOf(before) : this.groups.length, 0, [number]);
  }

  /** Ties a response with the group at `index`. */
  join(number, index) {
    const group = this.groups[index];
    if (group.includes(number)) return;
    this.remove(number);
    group.push(number);
  }

  remove(number) {
    this.groups = this.groups.map((group) => remove(group, number)).filter((group) => group.length > 0);
  }

  /** Takes out what was placed last; returns its number. */
  takeBack() {
    const number = this.groups.at(-1)?.at(-1);
    if (number !== undefined) this.remove(number);
    return number;
  }

  /** One step up (-1) or down (1): out of a tie into a place of its own, else into the neighbouring group. */
  move(number, step) {
    const place = this.placeOf(number);
    if (place < 0) this.next(number);
    else if (this.isTied(number)) this.insert(number, step < 0 ? place : place + 1);
    else if (this.groups[place + step]) this.join(number, place + step);
  }
}

function remove(group, number) {
  // The group stays the same object, so that callers can hold on to it.
  const index = group.indexOf(number);
  if (index >= 0) group.splice(index, 1);
  return group;
}
