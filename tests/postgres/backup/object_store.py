"""An S3-compatible store on this machine, behind TLS, as far as pgBackRest uses it.

Real requests over a real certificate; only the disks behind it are a dictionary. Whoever signs
with another key is refused, as a store does.
"""

from __future__ import annotations

import hashlib
import re
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from postgres.ports import LOOPBACK, free_port


@dataclass(slots=True)
class Bucket:
    """One bucket: its objects, parts of uploads, and how many requests of each kind came."""

    name: str
    key: str
    objects: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)
    requests: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    port: int = 0


@contextmanager
def object_store(bucket: Bucket, certificate: Path, key: Path) -> Iterator[None]:
    """Serve the bucket at `bucket.port` while the block runs."""
    bucket.port = free_port()
    server = ThreadingHTTPServer((LOOPBACK, bucket.port), _handler(bucket))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def write_certificate(certificate: Path, key: Path) -> None:
    """A certificate for localhost that vouches for itself."""
    secret = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, secret.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(secret, hashes.SHA256())
    )
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    certificate.chmod(0o644)
    key.write_bytes(
        secret.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def _handler(bucket: Bucket) -> type[BaseHTTPRequestHandler]:
    class Handler(_S3):
        pass

    Handler.bucket = bucket
    return Handler


class _S3(BaseHTTPRequestHandler):
    """The six requests that pgBackRest makes, and nothing else."""

    protocol_version = "HTTP/1.1"
    timeout = 20
    bucket: Bucket

    def do_PUT(self) -> None:
        """An object, or a part of one."""
        body = self._body()
        number = self._query.get("partNumber")
        if number is None:
            self.bucket.objects[self._name] = body
        else:
            self.bucket.uploads[self._query["uploadId"]][int(number)] = body
        self._answer(HTTPStatus.OK, headers={"ETag": f'"{hashlib.md5(body).hexdigest()}"'})  # noqa: S324

    def do_GET(self) -> None:
        """A list, or an object or a range of it."""
        if not self._name:
            self._answer(HTTPStatus.OK, self._listing())
            return
        body = self.bucket.objects.get(self._name)
        if body is None:
            self._answer(HTTPStatus.NOT_FOUND, b"<Error><Code>NoSuchKey</Code></Error>")
        elif found := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            end = int(found[2]) + 1 if found[2] else len(body)
            self._answer(HTTPStatus.PARTIAL_CONTENT, body[int(found[1]) : end])
        else:
            self._answer(HTTPStatus.OK, body)

    def do_HEAD(self) -> None:
        """Whether an object is there, and how long it is."""
        body = self.bucket.objects.get(self._name)
        status = HTTPStatus.NOT_FOUND if body is None else HTTPStatus.OK
        self._answer(status, body or b"")

    def do_POST(self) -> None:
        """Begin or complete an upload of parts, or delete a list of objects."""
        body = self._body()
        if "delete" in self._query:
            for name in re.findall(r"<Key>(.*?)</Key>", body.decode()):
                self.bucket.objects.pop(name, None)
            self._answer(HTTPStatus.OK, b"<DeleteResult></DeleteResult>")
        elif "uploads" in self._query:
            with self.bucket.lock:
                upload = f"upload-{len(self.bucket.uploads)}"
                self.bucket.uploads[upload] = {}
            self._answer(
                HTTPStatus.OK,
                f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId>"
                "</InitiateMultipartUploadResult>".encode(),
            )
        else:
            parts = self.bucket.uploads.pop(self._query["uploadId"])
            self.bucket.objects[self._name] = b"".join(parts[each] for each in sorted(parts))
            self._answer(
                HTTPStatus.OK,
                b"<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>",
            )

    def do_DELETE(self) -> None:
        """Delete one object."""
        self.bucket.objects.pop(self._name, None)
        self._answer(HTTPStatus.NO_CONTENT)

    def parse_request(self) -> bool:
        """Refuse who signs with another key."""
        if not super().parse_request():
            return False
        with self.bucket.lock:
            self.bucket.requests[self.command] = self.bucket.requests.get(self.command, 0) + 1
        if f"Credential={self.bucket.key}/" in self.headers.get("Authorization", ""):
            return True
        self._answer(HTTPStatus.FORBIDDEN, b"<Error><Code>AccessDenied</Code></Error>")
        return False

    def finish(self) -> None:
        """Say goodbye in TLS: a connection that just breaks off is an attack to OpenSSL."""
        super().finish()
        connection: Any = self.connection
        with suppress(OSError, ValueError):
            connection.unwrap()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""

    @property
    def _name(self) -> str:
        _, _, name = unquote(urlsplit(self.path).path).lstrip("/").partition("/")
        return name

    @property
    def _query(self) -> Mapping[str, str]:
        query = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
        return {name: values[0] for name, values in query.items()}

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", "0")))

    def _listing(self) -> bytes:
        prefix, delimiter = self._query.get("prefix", ""), self._query.get("delimiter")
        folders: set[str] = set()
        items = []
        for name, body in sorted(self.bucket.objects.items()):
            if not name.startswith(prefix):
                continue
            rest = name.removeprefix(prefix)
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.split(delimiter)[0] + delimiter)
                continue
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
            items.append(
                f"<Contents><Key>{escape(name)}</Key><Size>{len(body)}</Size>"
                f"<LastModified>{now}</LastModified></Contents>"
            )
        items += [
            f"<CommonPrefixes><Prefix>{escape(each)}</Prefix></CommonPrefixes>"
            for each in sorted(folders)
        ]
        inside = "".join(items)
        return (
            "<ListBucketResult><IsTruncated>false</IsTruncated>" + inside + "</ListBucketResult>"
        ).encode()

    def _answer(
        self, status: HTTPStatus, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Last-Modified", self.date_time_string())
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
