import base64

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from modules.api.guard import COOKIE, MAX_BODY, Guard

HOME = "http://127.0.0.1:7860"


async def echo(request):
    return PlainTextResponse(f"{await request.body()!r} {request.headers.get('x-forwarded-host')}")


INNER = Starlette(routes=[Route(path, echo, methods=["GET", "POST"]) for path in ("/", "/api/v1/jobs", "/gradio_api/file=/etc/passwd")])


def client(names=(), auth=None, token=None, base=HOME, framed=False):
    guard = Guard(INNER, None if names is None else set(names), auth, token, framed)
    return TestClient(guard, base_url=base, follow_redirects=False)


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "LOCALHOST", "localhost.", "[::1]:7860"])
def test_this_machines_own_names_are_answered(host):
    assert client().get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:7860", "a@evil.example", "10.0.0.1", "127.0.0.2"])
@pytest.mark.parametrize("origin", [True, False])
def test_other_names_are_not(host, origin):
    headers = {"Host": host, **({"Origin": f"http://{host}"} if origin else {})}
    for path in ("/", "/api/v1/jobs"):
        assert client().get(path, headers=headers).status_code in (400, 403)


def test_missing_and_double_hosts_are_malformed():
    assert client().get("/", headers=[("Host", "localhost"), ("Host", "evil.example")]).status_code == 400
    assert client().get("/", headers={"Host": ""}).status_code == 400
    assert client().get("/", headers={"Host": "[::1"}).status_code == 400


def test_names_given_by_the_user_are_answered():
    assert client(names=["studio.lan"]).get("/", headers={"Host": "Studio.LAN:7860"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": "http://localhost:3000"},
        {"Origin": "http://127.0.0.1:3000"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
    ],
)
def test_other_sites_cannot_act(headers):
    for content_type in ("application/json", "text/plain", "multipart/form-data"):
        assert client().post("/api/v1/jobs", headers={**headers, "Content-Type": content_type}, content=b"{}").status_code == 403
    assert client().get("/api/v1/jobs", headers=headers).status_code == 403


def test_this_page_programs_and_links_to_the_page_are_fine():
    assert client().post("/api/v1/jobs", headers={"Origin": HOME, "Sec-Fetch-Site": "same-origin"}).status_code == 200
    assert client().post("/api/v1/jobs").status_code == 200
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert client().get("/", headers=link).status_code == 200
    frame = {**link, "Sec-Fetch-Dest": "iframe"}
    assert client().get("/", headers=frame).status_code == 403
    assert client(framed=True).get("/", headers=frame).status_code == 200


def test_pages_may_not_be_framed_and_forwarded_names_are_not_believed():
    answer = client().get("/", headers={"X-Forwarded-Host": "evil.example"})
    assert answer.headers["content-security-policy"] == "frame-ancestors 'none'"
    assert answer.text == "b'' None"


def test_files_are_not_served_by_name():
    assert client().get("/gradio_api/file=/etc/passwd").status_code == 403


def test_long_bodies_are_refused_whether_they_say_their_length_or_not():
    assert client().post("/", content=b"", headers={"Content-Length": str(MAX_BODY + 1)}).status_code == 413
    assert client().post("/", content=b"", headers={"Content-Length": "-5"}).status_code == 413


def test_a_password_is_asked_everywhere():
    guarded = client(names=None, auth="ann:secret")
    assert guarded.get("/", headers={"Host": "studio.lan"}).status_code == 401
    wrong, right = (base64.b64encode(text).decode() for text in (b"ann:wrong", b"ann:secret"))
    assert guarded.get("/api/v1/jobs", headers={"Authorization": f"Basic {wrong}"}).status_code == 401
    assert guarded.get("/api/v1/jobs", headers={"Authorization": "Basic ???"}).status_code == 401
    assert guarded.get("/api/v1/jobs", headers={"Authorization": f"Basic {right}", "Host": "studio.lan"}).status_code == 200
    assert guarded.get("/api/v1/jobs", headers={"Authorization": f"Basic {right}", "Origin": "http://evil.example"}).status_code == 403


def test_a_token_is_exchanged_for_a_cookie_once():
    guarded = client(names=None, token="s3cret")
    assert guarded.get("/").status_code == 401
    assert guarded.get("/?token=wrong").status_code == 401
    entered = guarded.get("/?token=s3cret")
    assert entered.status_code == 303 and entered.headers["location"] == "/"
    assert "httponly" in entered.headers["set-cookie"].lower() and COOKIE in entered.headers["set-cookie"]
    assert guarded.get("/").status_code == 200
    for strange in ('prefs={"theme":"dark"}', "a b=c", "name[0]=x"):
        assert client(names=None, token="s3cret").get("/", headers={"Cookie": f"{strange}; {COOKIE}=s3cret"}).status_code == 200
    assert client(names=None, token="s3cret").get("/", headers={"Authorization": "Bearer s3cret"}).status_code == 200
