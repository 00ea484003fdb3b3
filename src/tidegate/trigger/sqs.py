"""Hints from a queue of Amazon SQS, into which a bucket (or SNS, or EventBridge) writes what happens to its objects.

Asked by long polls, a request each 20 seconds while nothing happens. What was received is deleted unread: watchers that
share a queue share its hints, so give each its own where all are to be woken. It takes ``sqs:ReceiveMessage`` and
``sqs:DeleteMessage``; credentials come from where every AWS program has them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from tidegate.errors import ConfigError, ServerError, UsageError
from tidegate.trigger import aws

WAIT_SECONDS = 20  # the longest that SQS allows
_URL = re.compile(r"https?://[^\s/@?#]+/[^\s?#]+")
_HOST = re.compile(r"(?:sqs\.([a-z0-9-]+)|([a-z0-9-]+)\.queue)\.amazonaws\.com(?:\.cn)?")


class Queue:
    """A queue, as a source of hints.

    Args:
        url: of the queue; it is asked where its URL says, so that it may be another's than Amazon's.
        wait: seconds that a long poll takes at most.
    """

    def __init__(self, url: str, wait: int = WAIT_SECONDS) -> None:
        if not _URL.fullmatch(url):
            allowed = "sqs:URL, such as sqs:https://sqs.eu-central-1.amazonaws.com/123456789012/queue."
            raise UsageError(f"{url!r} is no URL of a queue", allowed=allowed, code="notify-invalid")
        self.url, self.wait, self._client = url, wait, _client(url, wait)

    def check(self) -> None:
        """See ``Source``."""
        self._try(lambda: self._receive(lambda: None, 0))  # before the first look, which needs no hint

    def receive(self, give: Callable[[], None]) -> None:
        """See ``Source``."""
        self._try(lambda: self._receive(give, self.wait))

    def _receive(self, give: Callable[[], None], wait: int) -> None:
        said = self._client.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10, WaitTimeSeconds=wait)
        if messages := said.get("Messages"):
            give()
            read = [{"Id": str(n), "ReceiptHandle": m["ReceiptHandle"]} for n, m in enumerate(messages)]
            self._client.delete_message_batch(QueueUrl=self.url, Entries=read)

    def _try(self, call: Callable[[], object]) -> None:
        from botocore import exceptions as aws_errors

        try:
            call()
        except aws_errors.ClientError as e:
            raise (_away if _passes(e.response) else _wrong)(self.url, str(e)) from e
        except (aws_errors.ConnectionError, aws_errors.HTTPClientError) as e:
            raise _away(self.url, str(e)) from e
        except aws_errors.BotoCoreError as e:
            raise _wrong(self.url, str(e)) from e


def _client(url: str, wait: int) -> Any:
    asked = aws.session()
    from botocore.config import Config

    parts = urlsplit(url)
    config = Config(connect_timeout=5, read_timeout=wait + 10, retries={"total_max_attempts": 1})
    found = _HOST.fullmatch(parts.hostname or "")
    region = (found[1] or found[2]) if found else aws.region()
    return asked.create_client("sqs", region, endpoint_url=f"{parts.scheme}://{parts.netloc}", config=config)


def _passes(answer: Mapping[str, Any]) -> bool:
    """Whether an error is the server's own, or of too many requests."""
    code, status = answer["Error"].get("Code", ""), answer["ResponseMetadata"].get("HTTPStatusCode", 0)
    return status >= 500 or status == 429 or "Throttl" in code or code == "OverLimit"


def _wrong(url: str, why: str) -> ConfigError:
    return ConfigError(
        f"the queue {url} cannot be asked: {why}",
        allowed="A queue whose messages the credentials in the environment may receive and delete.",
        hint="Set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY; look at the queue's URL and policy.",
        code="notify-refused",
    )


def _away(url: str, why: str) -> ServerError:
    return ServerError(f"the queue {url} cannot be asked now: {why}", code="notify-unreachable")
