"""Where requests go and what is said about it: redirects, mirrors, proxies, names in errors."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.core.errors import NotFoundError
from pipeline.fetch import response_headers
from pipeline.fetch.fetcher import MAX_REDIRECTS, Fetcher
from pipeline.fetch.mirrors import Mirrors
from tests.http_samples import JSON, SUM, refusal
from tests.misbehaving_server import (
    MisbehavingServer,
    file,
    html_page,
    raw,
    redirect,
    status,
)

# Redirects.


def test_a_redirect_is_followed_and_its_address_may_be_relative(server: MisbehavingServer, fetcher: Fetcher) -> None:
    server.says("/a/new", file(JSON))
    for code in (301, 302, 303, 307, 308):
        assert fetcher.get(server.says(f"/a/{code}", redirect("new", code))) == JSON


def test_a_redirect_loop_is_named(server: MisbehavingServer, fetcher: Fetcher) -> None:
    server.says("/b", redirect("/a"))
    assert "redirect loop" in refusal(lambda: fetcher.get(server.says("/a", redirect("/b"))))
    assert len(server.requests) == 2


def test_redirects_have_an_end(server: MisbehavingServer, fetcher: Fetcher) -> None:
    for number in range(9):
        server.says(f"/{number}", redirect(f"/{number + 1}"))
    server.says(f"/{9}", file(JSON))
    assert f"more than {MAX_REDIRECTS} redirects" in refusal(lambda: fetcher.get(server.base + "/0"))
    refusal(lambda: fetcher.get(server.base + "/3"))
    assert fetcher.get(server.base + "/4") == JSON


def test_the_body_of_a_redirect_is_not_read(server: MisbehavingServer, fetcher: Fetcher) -> None:
    server.says("/new", file(JSON))
    url = server.says("/a", raw(302, {"Location": "/new", "Content-Length": str(1 << 40)}, b"x"))
    assert fetcher.get(url) == JSON
    assert fetcher.requests == 2


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://a/", "http://[", "//", "javascript:1", "http://a:b:c/"])
def test_a_redirect_to_what_is_not_http_is_refused(server: MisbehavingServer, fetcher: Fetcher, to: str) -> None:
    refusal(lambda: fetcher.get(server.says("/a", redirect(to))))
    assert all(r.path in ("/a", "/") for r in server.requests)


def test_https_never_leads_down_to_http() -> None:
    for down in ("http://a.example/x", "http://10.0.0.1/"):
        with pytest.raises(ValueError, match="from https down to"):
            response_headers.redirected("https://a.example/", down)
    for here in ("http://127.0.0.1:8/x", "http://localhost/x", "http://[::1]/x"):
        assert response_headers.redirected("https://a.example/", here) == here


def test_a_redirect_that_leaves_its_server_goes_through_the_mirrors(server: MisbehavingServer, tmp_path: Path) -> None:
    server.says("/up/x", redirect("https://cdn.example/x"))
    server.says("/cdn/x", file(JSON))
    mirrors = Mirrors({"https://up.example/": server.base + "/up/", "https://cdn.example/": server.base + "/cdn/"})
    assert Fetcher(tmp_path, mirrors=mirrors).get("https://up.example/x") == JSON


# Words.


def test_an_error_names_the_address_and_its_mirror_but_no_password(server: MisbehavingServer, tmp_path: Path) -> None:
    mirrors = Mirrors({"https://up.example/": server.base.replace("//", "//me:secret@") + "/m/"})
    fetcher = Fetcher(tmp_path, mirrors=mirrors)
    text = refusal(lambda: fetcher.get("https://up.example/x"), NotFoundError)
    assert f"https://up.example/x (mirror {server.base}/m/x): 404 Not Found" in text
    assert "secret" not in text
    assert server.requests[0].headers["authorization"].startswith("Basic ")


@pytest.mark.parametrize(
    "url", ["http://[", "ftp://a/x", "file:///etc/passwd", "x", "", "http://", "http://a\x00b/", "http://" + "a" * 300]
)
def test_an_address_that_is_none_is_our_own_error(fetcher: Fetcher, url: str, tmp_path: Path) -> None:
    for call in (
        lambda: fetcher.get(url),
        lambda: fetcher.exists(url),
        lambda: fetcher.download([url], tmp_path / "x", sha256=SUM, size=1),
    ):
        refusal(call)


def test_the_user_agent_names_the_project(server: MisbehavingServer, fetcher: Fetcher) -> None:
    fetcher.get(server.says("/x", file(JSON)))
    assert server.requests[0].headers["user-agent"].startswith("coreos-nvidia/")


def test_cookies_are_not_kept(server: MisbehavingServer, fetcher: Fetcher) -> None:
    url = server.says("/x", status(200, {"Set-Cookie": "a=b"}))
    fetcher.get(url)
    fetcher.get(url)
    assert "cookie" not in server.requests[1].headers


def test_a_connection_is_used_again(server: MisbehavingServer, fetcher: Fetcher) -> None:
    for number in range(5):
        fetcher.get(server.says(f"/{number}", file(JSON)))
    assert len(server.connections) == 1


def test_the_proxy_of_the_environment_is_asked(
    server: MisbehavingServer, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.base)
    server.says("http://up.example/x", file(JSON))
    assert fetcher.get("http://up.example/x") == JSON


def test_a_ca_bundle_that_is_not_there_is_said(fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none.pem"))
    assert "none.pem" in refusal(lambda: fetcher.get("https://127.0.0.1:1/"))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that vouches for itself, and its key."""
    if not shutil.which("openssl"):
        pytest.skip("needs openssl to make a certificate")
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    subprocess.run([*command, "-keyout", path, "-out", path.with_suffix(".crt")], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + path.with_suffix(".crt").read_bytes())
    return path


def test_a_certificate_nobody_vouches_for_is_final_and_says_how_to_vouch(fetcher: Fetcher, certificate: Path) -> None:
    with MisbehavingServer(certificate) as server:
        text = refusal(lambda: fetcher.get(server.says("/x", file(JSON))))
    assert "certificate verify failed" in text
    assert "REQUESTS_CA_BUNDLE" in text
    assert fetcher.requests == 1


def test_the_ca_bundle_of_the_environment_vouches(fetcher: Fetcher, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate.with_suffix(".crt")))
    with MisbehavingServer(certificate) as server:
        assert fetcher.get(server.says("/x", file(JSON))) == JSON


def test_an_html_page_with_200_is_given_to_the_parser_that_refuses_it(server: MisbehavingServer, fetcher: Fetcher) -> None:
    assert fetcher.get(server.says("/feed.json", html_page())).startswith(b"<!DOCTYPE")
