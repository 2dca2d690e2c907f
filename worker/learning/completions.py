"""What does a model behind a server answer? Any server that speaks OpenAI's chat completions, as a sampler."""

import os
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx
from transformers import PreTrainedTokenizerBase

from worker.learning.progress import Progress, Report, silent
from worker.learning.records import Prompt, Sample
from worker.learning.sampling import Sampler, SamplingSettings
from worker.learning.seeds import derive_seed

API_KEY_VARIABLE = "OPENAI_API_KEY"
FINISH_REASONS: dict[str, Literal["ended", "cut"]] = {"stop": "ended", "length": "cut"}
SHOWN_CHARACTERS = 300  # of what a server says

Json = Any


class ServerError(ValueError):
    """The server cannot be asked, or its answer cannot be used; the sentence says what to do."""


@dataclass(frozen=True)
class Patience:
    """How long a server that is busy or away for a moment is waited for."""

    tries: int = 6
    """Times that a request is sent before its failure counts."""
    first_pause: float = 1.0
    """Seconds after the first failure; each pause is twice the one before, give or take a quarter."""
    longest_pause: float = 60.0
    """Seconds; also where the server says itself when to come back."""
    timeout: float = 600.0
    """Seconds that a request may take."""


def server_sampler(
    url: str,
    model_name: str,
    settings: SamplingSettings,
    api_key: str | None = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    extra: Mapping[str, Json] | None = None,
    concurrency: int = 16,
    patience: Patience = Patience(),  # frozen
) -> Sampler:
    """A sampler that asks a server (vLLM, `transformers serve`, a provider's).

    A request asks for all responses to a prompt, and every sample names its request's seed; whether the server
    honours it, and n, is its own affair: what is missing is asked for again. Token ids are the server's where it gives
    them (vLLM does with `extra={"return_token_ids": True}`), else the text's by `tokenizer`, else there are none.

    Args:
        url: the server's address, with or without its `/v1`.
        api_key: sent as a bearer token; None takes the environment's OPENAI_API_KEY, if it is set.
        extra: more fields of every request.
        concurrency: requests under way at once.
    """
    if concurrency < 1:
        raise ValueError(f"concurrency must be at least 1, not {concurrency}")
    key = api_key or os.environ.get(API_KEY_VARIABLE) or None
    fields = {
        "model": model_name,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_tokens": settings.max_new_tokens,
        **(extra or {}),
    }
    server = _Server(_address(url), fields, patience, key)

    def sample(prompts: Sequence[Prompt], n: int, seed: int, report: Report = silent) -> list[list[Sample]]:
        with server.opened(concurrency) as client, _threads(concurrency) as pool:
            seeds = [derive_seed(seed, "completions", place) for place in range(len(prompts))]
            asked = [
                pool.submit(_samples, server, client, prompt, n, own_seed, tokenizer)
                for prompt, own_seed in zip(prompts, seeds, strict=True)
            ]
            for done, future in enumerate(as_completed(asked), start=1):
                future.result()  # the first failure ends it
                report(Progress("sample_responses", done * n, len(prompts) * n))
        return [future.result() for future in asked]

    return sample


def _address(url: str) -> str:
    """Where chat completions are asked for."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        raise ValueError(f"{url} is no address of a server, such as http://localhost:8000")
    path = parts.path.rstrip("/") or "/v1"
    if not path.endswith("/chat/completions"):
        path += "/chat/completions"
    return f"{parts.scheme}://{parts.netloc}{path}"


@contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """A pool that drops what has not begun when the block is left by an error."""
    pool = ThreadPoolExecutor(count, "completions")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class _Server:
    """Where and how to ask."""

    address: str
    fields: Mapping[str, Json]
    patience: Patience
    api_key: str | None = field(default=None, repr=False)

    def opened(self, connections: int) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        limits = httpx.Limits(max_connections=connections)
        return httpx.Client(headers=headers, timeout=self.patience.timeout, limits=limits)

    def ask(self, client: httpx.Client, question: Mapping[str, Json]) -> Json:
        """The answer to one request; a server that is busy or away for a moment is asked again."""
        for tried in range(1, self.patience.tries + 1):
            try:
                response = client.post(self.address, json={**self.fields, **question})
            except httpx.ConnectError as error:
                raise ServerError(f"nothing answers at {self.address}: is the server running? ({error})") from error
            except httpx.TransportError as error:
                failure, wanted = f"{type(error).__name__} {error}".strip(), None
            else:
                if response.is_success:
                    return self._read(response)
                failure, wanted = self._told(response), response.headers.get("Retry-After")
                if response.status_code not in {408, 429} and response.status_code < 500:
                    raise ServerError(self._refusal(response.status_code, failure))
            if tried < self.patience.tries:
                time.sleep(self._pause(tried, wanted))
        raise ServerError(f"{self.address} failed {self.patience.tries} times, the last time with: {failure}")

    def _pause(self, tried: int, wanted: str | None) -> float:
        """Seconds until the next try: what the server asks for, or twice as long each time."""
        if wanted is not None and wanted.isdecimal():
            return min(float(wanted), self.patience.longest_pause)
        longer = self.patience.first_pause * 2.0 ** (tried - 1)
        return min(longer, self.patience.longest_pause) * random.uniform(0.75, 1.25)

    def _read(self, response: httpx.Response) -> Json:
        try:
            return response.json()
        except ValueError as error:
            raise ServerError(
                f"{self.address} does not answer in JSON: is this an OpenAI-compatible server? {self._told(response)}"
            ) from error

    def _refusal(self, status: int, told: str) -> str:
        if status in {401, 403}:
            what = "wants another key" if self.api_key else "wants a key"
            return f"{self.address} {what}: put it into the environment's {API_KEY_VARIABLE} ({told})"
        if status == 404:
            return f"{self.address} knows no such address or no model {self.fields['model']}: check both ({told})"
        return f"{self.address} refuses the request: {told}"

    def _told(self, response: httpx.Response) -> str:
        """What the server says, short, without the key, which some quote."""
        text = " ".join(response.text.split())
        if self.api_key:
            text = text.replace(self.api_key, "***")
        return f"{response.status_code} {text[:SHOWN_CHARACTERS]}".strip()


def _samples(
    server: _Server,
    client: httpx.Client,
    prompt: Prompt,
    n: int,
    seed: int,
    tokenizer: PreTrainedTokenizerBase | None,
) -> list[Sample]:
    """All samples of one prompt; a server that gives fewer than were asked for is asked again."""
    samples: list[Sample] = []
    while len(samples) < n:
        own_seed = derive_seed(seed, len(samples))
        question = {"messages": list(prompt), "n": n - len(samples), "seed": own_seed}
        answer = server.ask(client, question)
        choices = answer.get("choices") if isinstance(answer, dict) else None
        if not isinstance(choices, list) or not choices:
            raise ServerError(f'{server.address} answers without "choices": is this an OpenAI-compatible server?')
        samples += [_sample(server, choice, own_seed, tokenizer) for choice in choices[: n - len(samples)]]
    return samples


def _sample(server: _Server, choice: Json, seed: int, tokenizer: PreTrainedTokenizerBase | None) -> Sample:
    try:
        text, reason = choice["message"]["content"] or "", choice["finish_reason"]
    except (KeyError, TypeError) as error:
        raise ServerError(f'{server.address} gives a choice without "message"."content" or "finish_reason"') from error
    if reason not in FINISH_REASONS:
        raise ServerError(f'{server.address} ended a response for the reason "{reason}", and not by stop or length')
    finish_reason = FINISH_REASONS[reason]
    return Sample(text, _token_ids(choice, text, finish_reason, tokenizer), finish_reason, seed)


def _token_ids(
    choice: Mapping[str, Json], text: str, finish_reason: str, tokenizer: PreTrainedTokenizerBase | None
) -> tuple[int, ...]:
    if isinstance(given := choice.get("token_ids"), list):
        return tuple(given)
    if tokenizer is None:
        return ()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return (*ids, tokenizer.eos_token_id) if finish_reason == "ended" else tuple(ids)
