"""In which language is a person spoken to? Every sentence that people read passes through `gettext`."""


def gettext(message: str, **values: object) -> str:
    """The sentence in the request's language, its %(name)s filled in with `values`."""
    return message % values if values else message


def ngettext(singular: str, plural: str, num: int, **values: object) -> str:
    """The sentence that goes with `num`, which fills %(num)s."""
    return (singular if num == 1 else plural) % {"num": num, **values}
