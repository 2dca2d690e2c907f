"""A browser without JavaScript: it keeps cookies and sends forms with their token."""

import re

from fastapi.testclient import TestClient
from httpx import Response


class Visitor:
    """One browser. `post` fetches the token from the last page, as a form on it would carry it."""

    def __init__(self, client: TestClient) -> None:
        self.client = client
        self.token = ""

    def get(self, path: str, **headers: str) -> Response:
        answer = self.client.get(path, headers=headers)
        if found := re.search(r'name="csrf" value="([^"]+)"', answer.text):
            self.token = found[1]
        return answer

    def post(self, path: str, fields: dict[str, str] | None = None, **headers: str) -> Response:
        return self.client.post(path, data={"csrf": self.token, **(fields or {})}, headers=headers)
