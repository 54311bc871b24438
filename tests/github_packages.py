"""A server that speaks as much of GitHub's packages API as the pipeline uses."""

from __future__ import annotations

import json

from tests.told_server import Handler, Seen

TOKEN = "ghp_synthetic"


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


class GitHub:
    """An account with one container package of so many versions."""

    def __init__(self, versions: int, *, kind: str = "Organization", fails: int = 0, package: str = "driver") -> None:
        self.versions = {number: digest(number) for number in range(versions)}
        self.kind, self.fails, self.package = kind, fails, package

    def __call__(self, seen: Seen, handler: Handler) -> None:
        if seen.headers.get("authorization") != f"Bearer {TOKEN}":
            return self.say(handler, 401, {"message": "Bad credentials"})
        if self.fails:
            self.fails -= 1
            return handler.say(502, b"<html>bad gateway</html>", Content_Type="text/html")
        base = f"/{'orgs' if self.kind == 'Organization' else 'users'}/acme/packages/container/{self.package}/versions"
        if seen.path == "/users/acme":
            return self.say(handler, 200, {"login": "acme", "type": self.kind})
        if seen.method == "GET" and seen.path == base:
            size, page = int(seen.query["per_page"][0]), int(seen.query["page"][0])
            rows = [{"id": i, "name": d, "metadata": {"container": {"tags": []}}} for i, d in self.versions.items()]
            return self.say(handler, 200, rows[size * (page - 1) : size * page])
        number = int(seen.path.rpartition("/")[2]) if seen.path.startswith(f"{base}/") else -1
        if seen.method != "DELETE" or number not in self.versions:
            return self.say(handler, 404, {"message": "Not Found"})
        if len(self.versions) == 1:
            return self.say(handler, 400, {"message": "You cannot delete the last tagged version of a package."})
        del self.versions[number]
        return handler.say(204)

    @staticmethod
    def say(handler: Handler, status: int, body: object) -> None:
        handler.say(status, json.dumps(body).encode(), Content_Type="application/json")
