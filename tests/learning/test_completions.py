"""Does a model behind a server answer like one in this process? Against a real server, on a real port."""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from worker.learning.completions import Patience, ServerError, server_sampler
from worker.learning.records import Message
from worker.learning.sampling import SamplingSettings

pytestmark = pytest.mark.learning

SETTINGS = SamplingSettings(temperature=0.7, top_p=0.9, max_new_tokens=5)
QUICK = Patience(tries=3, first_pause=0.01, longest_pause=0.05, timeout=2.0)
KEY = "sk-very-secret"


def prompt(text: str) -> tuple[Message, ...]:
    return ({"role": "user", "content": text},)


def choice(text: str | None, reason: str = "stop", **more: Any) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": text}, "finish_reason": reason, **more}


def said(asked: dict[str, Any]) -> str:
    return str(asked["messages"][-1]["content"])


@dataclass
class Server:
    """A small server of chat completions: it answers what the test says, and keeps what it was asked."""

    url: str = ""
    answer: Callable[[dict[str, Any]], Any] = lambda asked: {
        "choices": [
            choice(f"{asked['messages'][-1]['content']} {asked['seed']} {place}") for place in range(asked["n"])
        ]
    }
    failures: list[int | str] = field(default_factory=list)
    """Status codes of the next answers; a text is the body of one that succeeds."""
    retry_after: str | None = None
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0
    lock: Any = field(default_factory=threading.Lock)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with state.lock:
                state.asked.append({**asked, "path": self.path})
                state.headers.append(dict(self.headers))
                state.under_way += 1
                state.most_under_way = max(state.most_under_way, state.under_way)
                failure = state.failures.pop(0) if state.failures else None
            if isinstance(failure, str):
                status, body = 200, failure
            elif failure is not None:
                status, body = failure, json.dumps({"error": {"message": f"no, {self.headers['Authorization']}"}})
            else:
                status, body = 200, json.dumps(state.answer(asked))
            with state.lock:
                state.under_way -= 1
            self.send_response(status)
            if state.retry_after and status >= 400:
                self.send_header("Retry-After", state.retry_after)
            self.send_header("Content-Length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            """Quiet."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield state
    http.shutdown()
    http.server_close()
    thread.join()


def sampler(server: Server, **more: Any) -> Any:
    return server_sampler(server.url, "tiny", SETTINGS, patience=QUICK, **more)


def test_it_asks_for_all_that_the_settings_say(server: Server) -> None:
    sampler(server, extra={"top_k": 7})([prompt("Hi")], 3, 5)
    [asked] = server.asked
    assert asked.pop("seed") >= 0
    assert asked == {
        "path": "/v1/chat/completions",
        "model": "tiny",
        "messages": [{"role": "user", "content": "Hi"}],
        "n": 3,
        "temperature": 0.7,
        "top_p": 0.9,
        "max_tokens": 5,
        "top_k": 7,
    }


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("", "/v1/chat/completions"),
        ("/", "/v1/chat/completions"),
        ("/v1", "/v1/chat/completions"),
        ("/v1/", "/v1/chat/completions"),
        ("/api/v3", "/api/v3/chat/completions"),
        ("/v1/chat/completions", "/v1/chat/completions"),
    ],
)
def test_the_address_may_be_given_with_or_without_its_path(server: Server, given: str, path: str) -> None:
    server_sampler(server.url + given, "tiny", SETTINGS)([prompt("Hi")], 1, 5)
    assert server.asked[0]["path"] == path


def test_answers_keep_the_order_of_the_prompts_however_late_they_come(server: Server) -> None:
    usual = server.answer

    def slow_first(asked: dict[str, Any]) -> Any:
        time.sleep(0.3 if asked["messages"][-1]["content"] == "0" else 0.01)
        return usual(asked)

    server.answer = slow_first
    told: list[int] = []
    samples = sampler(server, concurrency=4)(
        [prompt(str(place)) for place in range(12)], 2, 5, lambda progress: told.append(progress.done)
    )
    assert [[one.text.split()[0] for one in own] for own in samples] == [[str(place)] * 2 for place in range(12)]
    assert [[one.text.split()[2] for one in own] for own in samples] == [["0", "1"]] * 12
    assert all(one.text.split()[1] == str(one.seed) for own in samples for one in own)
    assert 1 < server.most_under_way <= 4
    assert told == list(range(2, 25, 2))


def test_the_same_seed_asks_the_same_and_prompts_have_seeds_of_their_own(server: Server) -> None:
    first = sampler(server)([prompt("Hi"), prompt("Hi")], 1, 5)
    assert first == sampler(server)([prompt("Hi"), prompt("Hi")], 1, 5)
    assert first != sampler(server)([prompt("Hi"), prompt("Hi")], 1, 6)
    assert first[0][0].seed != first[1][0].seed


def test_how_a_response_finished_and_its_tokens(server: Server, tiny_tokenizer: Any) -> None:
    given = [choice("the cat"), choice("the cat", "length"), choice(None, "length"), choice("dog", token_ids=[4, 5])]
    server.answer = lambda _asked: {"choices": given}
    [without] = sampler(server)([prompt("Hi")], 4, 5)
    assert [one.finish_reason for one in without] == ["ended", "cut", "cut", "ended"]
    assert [one.text for one in without] == ["the cat", "the cat", "", "dog"]
    assert [one.token_ids for one in without] == [(), (), (), (4, 5)]
    [encoded] = sampler(server, tokenizer=tiny_tokenizer)([prompt("Hi")], 4, 5)
    cat = tuple(tiny_tokenizer("the cat")["input_ids"])
    assert [one.token_ids for one in encoded] == [(*cat, 1), cat, (), (4, 5)]


def test_a_server_that_knows_no_n_is_asked_until_there_are_enough(server: Server) -> None:
    server.answer = lambda asked: {"choices": [choice(str(asked["seed"]))]}
    [samples] = sampler(server)([prompt("Hi")], 3, 5)
    assert [asked["n"] for asked in server.asked] == [3, 2, 1]
    assert len({one.text for one in samples}) == 3
    assert all(one.text == str(one.seed) for one in samples)


@pytest.mark.parametrize("failure", [408, 429, 500, 502, 503])
def test_what_passes_is_tried_again(server: Server, failure: int) -> None:
    server.failures = [failure, failure]
    assert len(sampler(server)([prompt("Hi")], 1, 5)[0]) == 1
    assert len(server.asked) == 3


def test_what_does_not_pass_is_told_after_the_last_try(server: Server) -> None:
    server.failures = [503] * 9
    with pytest.raises(ServerError, match="failed 3 times, the last time with: 503"):
        sampler(server)([prompt("Hi")], 1, 5)
    assert len(server.asked) == 3


def test_it_waits_as_long_as_the_server_asks_for(server: Server) -> None:
    server.failures, server.retry_after = [429], "1"
    begun = time.monotonic()
    patience = Patience(tries=2, first_pause=0.0, longest_pause=5.0)
    server_sampler(server.url, "tiny", SETTINGS, patience=patience)([prompt("Hi")], 1, 5)
    assert time.monotonic() - begun >= 1.0


def test_a_server_that_hangs_is_asked_again(server: Server) -> None:
    usual, waits = server.answer, [1.0]

    def hang(asked: dict[str, Any]) -> Any:
        time.sleep(waits.pop() if waits else 0)
        return usual(asked)

    server.answer = hang
    patience = Patience(tries=2, first_pause=0.01, timeout=0.3)
    assert server_sampler(server.url, "tiny", SETTINGS, patience=patience)([prompt("Hi")], 1, 5)
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("failure", "sentence"),
    [
        (400, "refuses the request: 400 .*no,"),
        (401, "wants a key: put it into the environment's OPENAI_API_KEY"),
        (404, "knows no such address or no model tiny: check both"),
        ("<html>", "does not answer in JSON: is this an OpenAI-compatible server"),
        ("{}", 'answers without "choices"'),
        ('{"choices": []}', 'answers without "choices"'),
        ('{"choices": [{"text": "old"}]}', 'a choice without "message"."content"'),
        ('{"choices": [{"message": {"content": "x"}, "finish_reason": "content_filter"}]}', '"content_filter"'),
    ],
)
def test_what_is_wrong_is_said_at_once(server: Server, failure: int | str, sentence: str) -> None:
    server.failures = [failure]
    with pytest.raises(ServerError, match=sentence):
        sampler(server)([prompt("Hi")], 1, 5)
    assert len(server.asked) == 1


def test_one_failure_ends_it_and_what_has_not_begun_is_not_asked(server: Server) -> None:
    server.failures = [400]
    with pytest.raises(ServerError, match="refuses"):
        sampler(server, concurrency=1)([prompt(str(place)) for place in range(50)], 1, 5)
    assert len(server.asked) < 10


def test_nobody_there() -> None:
    with pytest.raises(
        ServerError, match=r"nothing answers at http://127\.0\.0\.1:1/v1/chat/completions: is the server"
    ):
        server_sampler("http://127.0.0.1:1", "tiny", SETTINGS, patience=QUICK)([prompt("Hi")], 1, 5)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://a", "http://", ""])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="is no address of a server, such as http://localhost:8000"):
        server_sampler(url, "tiny", SETTINGS)


def test_the_key_is_sent_and_never_told(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with caplog.at_level(logging.DEBUG):
        sampler(server)([prompt("Hi")], 1, 5)
        assert server.headers[-1]["Authorization"] == f"Bearer {KEY}"
        server.failures = [401]
        with pytest.raises(ServerError, match=r"wants another key.*no, Bearer \*\*\*") as refused:
            sampler(server)([prompt("Hi")], 1, 5)
    assert KEY not in str(refused.value)
    assert KEY not in caplog.text
    sampler(server, api_key="another")([prompt("Hi")], 1, 5)
    assert server.headers[-1]["Authorization"] == "Bearer another"
    monkeypatch.delenv("OPENAI_API_KEY")
    sampler(server)([prompt("Hi")], 1, 5)
    assert "Authorization" not in server.headers[-1]


def test_a_report_may_abort(server: Server) -> None:
    def abort(progress: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sampler(server, concurrency=1)([prompt(str(place)) for place in range(50)], 1, 5, abort)
    assert len(server.asked) < 50
