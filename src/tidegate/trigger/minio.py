"""Hints from a MinIO server itself, which tells whoever listens what happens to a bucket (``ListenBucketNotification``).

Nothing is set up on the server and nothing is kept there: what happens while nobody listens is not told, so each time
that listening begins is a hint too. It takes ``s3:ListenBucketNotification``; the server and the credentials are those of
the bucket, by their usual names (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID …). Amazon's S3 has no such thing: ``sqs``.

A server sends a space twice a second while nothing happens. Those of October 2025 and later take the request and then
send nothing at all (a flush that MinIO lost); that is found out in ``SILENT_SECONDS`` and said.
"""

from __future__ import annotations

import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit

from tidegate.errors import ConfigError, ServerError
from tidegate.trigger import aws

EVENTS = ("s3:ObjectCreated:*", "s3:ObjectRemoved:*")
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")  # as obstore reads them
STREAM = "text/event-stream"
SILENT_SECONDS = 5.0


@dataclass(frozen=True)
class Listening:
    """A bucket's prefix, as a source of hints; ``uri`` is ``s3://BUCKET/PREFIX``."""

    uri: str

    def check(self) -> None:
        """See ``Source``."""
        with self._listen():
            pass

    def receive(self, give: Callable[[], None]) -> None:
        """See ``Source``."""
        with self._listen() as answer:
            give()
            while piece := answer.read1(1 << 16):
                if piece.strip():  # else a sign of life
                    give()

    @contextmanager
    def _listen(self) -> Iterator[Any]:
        url = self._url()
        request = urllib.request.Request(url, headers=self._signed(url))
        try:
            with urllib.request.urlopen(request, timeout=SILENT_SECONDS) as answer:
                if answer.headers.get_content_type() != STREAM:  # other servers list the bucket
                    raise self._wrong("the server is asked to tell, and does something else")
                yield answer
        except urllib.error.HTTPError as e:
            with e:
                why = f"the server answers {e.code} {e.reason}"
            raise (self._wrong if 400 <= e.code < 500 and e.code != 429 else self._away)(why) from e
        except TimeoutError as e:
            raise self._away(f"the server says nothing for {SILENT_SECONDS:g} s") from e
        except (urllib.error.URLError, http.client.HTTPException, OSError) as e:
            raise self._away(str(getattr(e, "reason", "") or e)) from e

    def _url(self) -> str:
        endpoint = next(filter(None, map(os.environ.get, ENDPOINTS)), None)
        if not endpoint:
            raise self._wrong("AWS_ENDPOINT_URL is not set, and Amazon's S3 tells nobody")
        parts = urlsplit(self.uri)
        asked = [("prefix", unquote(parts.path).lstrip("/")), ("suffix", ""), *(("events", e) for e in EVENTS)]
        return f"{endpoint.rstrip('/')}/{parts.netloc}?{urlencode(asked, quote_via=quote)}"

    def _signed(self, url: str) -> dict[str, str]:
        credentials = aws.session().get_credentials()
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest

        if not credentials:
            raise self._wrong("there are no credentials")
        request = AWSRequest("GET", url)
        S3SigV4Auth(credentials.get_frozen_credentials(), "s3", aws.region()).add_auth(request)
        return dict(request.headers.items())

    def _wrong(self, why: str) -> ConfigError:
        return ConfigError(
            f"nobody tells what happens at {self.uri}: {why}",
            allowed="A MinIO server, whose bucket the credentials in the environment may listen to.",
            hint="Set AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY; for Amazon's S3 --notify sqs:URL.",
            code="notify-refused",
        )

    def _away(self, why: str) -> ServerError:
        return ServerError(
            f"nobody tells what happens at {self.uri} now: {why}",
            allowed="A MinIO server that streams what happens; those of October 2025 and later do not.",
            hint="Let the server call instead: --listen HOST:PORT",
            code="notify-unreachable",
        )
