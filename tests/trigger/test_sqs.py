"""Hints from a queue: a real one (moto's server), into which a real bucket writes what happens to it."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.servers import DataBucket, data_bucket, free_port, moto, wait_until
from tidegate.errors import ConfigError, ServerError, UsageError
from tidegate.trigger.hint import Hints, followed
from tidegate.trigger.sqs import Queue


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with moto(free_port()) as endpoint:
        yield endpoint


def sqs(server: str) -> Any:
    import boto3

    return boto3.Session("k", "s", region_name="us-east-1").client("sqs", endpoint_url=server)


class Notified:
    """A bucket and the queue that it tells."""

    def __init__(self, bucket: DataBucket, server: str) -> None:
        self.bucket, self.client = bucket, sqs(server)
        self.url = self.client.create_queue(QueueName=f"hints-{secrets.token_hex(4)}")["QueueUrl"]
        arn = self.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        told = [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}]
        bucket.client.put_bucket_notification_configuration(
            Bucket=bucket.name, NotificationConfiguration={"QueueConfigurations": told}
        )

    def waiting(self) -> int:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        said = self.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)["Attributes"]
        return sum(int(said[n]) for n in names)


@pytest.fixture
def notified(server: str, monkeypatch: pytest.MonkeyPatch) -> Notified:
    return Notified(data_bucket(server, monkeypatch.setenv), server)


def test_a_new_object_wakes_who_waits_and_what_was_received_is_gone_from_the_queue(notified: Notified) -> None:
    hints = Hints()
    queue = Queue(notified.url, wait=1)
    queue.check()  # takes what lies there from before
    with followed(queue, hints, print):
        assert not hints.wait(0)
        notified.bucket.put("data/rows", "1")
        assert hints.wait(60)
        wait_until(lambda: notified.waiting() == 0)


def test_messages_that_are_nobodys_notification_are_hints_and_do_no_harm(notified: Notified) -> None:
    given: list[Any] = []
    for body in ("", " ", "{", json.dumps({"Event": "s3:TestEvent"}), "\u2603" * 100):
        notified.client.send_message(QueueUrl=notified.url, MessageBody=body or "x")
    Queue(notified.url, wait=1).receive(lambda: given.append(None))
    wait_until(lambda: notified.waiting() == 0)
    assert given == [None], "one for all that came together"


def test_a_queue_that_is_not_there_is_refused_and_one_that_cannot_be_reached_is_trouble(
    notified: Notified, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError) as wrong:
        Queue(notified.url + "-no").check()
    assert wrong.value.code == "notify-refused"
    with pytest.raises(ServerError) as away:
        Queue(f"http://127.0.0.1:{free_port()}/1/hints").check()
    assert away.value.code == "notify-unreachable"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with pytest.raises(ConfigError, match="credentials"):
        Queue(notified.url).check()


def test_a_queue_that_is_removed_behind_our_back_is_said_and_found_again(notified: Notified) -> None:
    hints, said = Hints(), []
    with followed(Queue(notified.url, wait=1), hints, said.append):
        notified.client.delete_queue(QueueUrl=notified.url)
        wait_until(lambda: bool(said))
        notified.client.create_queue(QueueName=notified.url.rpartition("/")[2])
        notified.client.send_message(QueueUrl=notified.url, MessageBody="{}")
        assert hints.wait(60)
    assert "cannot be asked" in said[0]


@pytest.mark.parametrize(
    "url", ["", "queue", "arn:aws:sqs:eu-central-1:1:queue", "https://host", "https://u:p@host/1/q"]
)
def test_what_is_no_url_of_a_queue_is_refused(url: str) -> None:
    with pytest.raises(UsageError) as e:
        Queue(url)
    assert e.value.code == "notify-invalid"


@pytest.mark.parametrize(
    ("url", "region"),
    [
        ("https://sqs.eu-central-1.amazonaws.com/1/q", "eu-central-1"),
        ("https://sqs.cn-north-1.amazonaws.com.cn/1/q", "cn-north-1"),
        ("https://us-west-2.queue.amazonaws.com/1/q", "us-west-2"),
        ("http://127.0.0.1:9324/1/q", "af-south-1"),
    ],
)
def test_a_queue_is_asked_in_its_own_region_at_its_own_address(
    url: str, region: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REGION", "af-south-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://minio.example:9000")
    meta = Queue(url)._client.meta
    assert meta.region_name == region
    assert url.startswith(meta.endpoint_url)


def test_without_botocore_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    with pytest.raises(ConfigError) as e:
        Queue("https://sqs.eu-central-1.amazonaws.com/1/q")
    assert (e.value.code, e.value.hint) == ("notify-extra", "pip install 'tidegate[notify]'")
