"""What becomes of a body of which only a part comes?"""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi import FastAPI
from starlette.types import Message

from app.errors import Invalid
from app.web.json_body import SentObject


def test_tab_that_closes_while_it_sends_is_no_fault_of_the_server() -> None:
    bare = FastAPI()

    @bare.put("/")
    def put(sent: SentObject) -> None:
        raise AssertionError(sent)

    parts: list[Message] = [
        {"type": "http.request", "body": b'{"fields": [', "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Message:
        return parts.pop(0)

    async def send(_message: Message) -> None:
        """Nobody is there."""

    scope = {"type": "http", "method": "PUT", "path": "/", "query_string": b"", "headers": []}
    # In a thread of its own: the browser of other tests keeps a loop running in this one.
    with ThreadPoolExecutor() as pool, pytest.raises(Invalid):
        pool.submit(asyncio.run, bare(scope, receive, send)).result()
