import pytest


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({"what": "lora", "name": "x", "data": "/etc"}, "data"),
        ({"what": "lora", "name": "x", "data": "../models"}, "data"),
        ({"what": "lora", "name": "x"}, "data"),
        ({"what": "new", "name": "../x"}, "name"),
        ({"what": "all", "name": "starter"}, "name"),
        ({"what": "all", "name": "x", "minutes": 10**9}, "minutes"),
        ({"what": "all", "name": "x", "folder": "elsewhere"}, "folder"),
        ({"what": {"a": []}, "name": "x"}, "what"),
    ],
)
def test_bad_requests_name_the_field_and_leave_no_training(server, request_, field):
    status, answer = server.ask("/api/v1/train", request_)
    assert status == 422 and answer["field"] == field and answer["message"].count("\n") == 0
    assert server.state()["trainings"] == []


def test_another_site_starts_no_training(server):
    assert server.ask("/api/v1/train", {"what": "all", "name": "x"}, Origin="http://evil.example")[0] == 403
    assert server.ask("/api/v1/train/1/resume", {}, Origin="http://evil.example")[0] == 403


def test_only_a_stopped_training_can_be_resumed(server):
    drawn = server.draw(steps=1)
    server.wait_for_job(drawn)
    for job in (drawn, 10**6):
        assert server.ask(f"/api/v1/train/{job}/resume", {})[1] == {"resumed": False}
    assert server.ask("/api/v1/train/-1/resume", {})[0] == 422
