"""Documents: uploads, the list, deletion, and the jobs that store them."""

from __future__ import annotations

import re
import time
from bisect import bisect_right
from collections.abc import Mapping
from datetime import datetime, timezone
from functools import partial
from os import SEEK_END
from pathlib import Path, PurePosixPath
from secrets import token_hex
from typing import IO, Any

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from colpali_integrations.errors import ImageError, InputError, StoreError
from colpali_integrations.pages.formats import image_suffixes
from colpali_integrations.pages.office import UPLOADED_SUFFIXES
from colpali_integrations.server.checking import check, parsed
from colpali_integrations.server.errors import RequestError
from colpali_integrations.server.jobs import source_of
from colpali_integrations.server.schemas import UPLOAD
from colpali_integrations.server.service import Service
from colpali_integrations.server.uploads import Job
from colpali_integrations.stores import Entry

__all__ = ["JOBS_CURSOR", "LARGEST_LIMIT", "delete", "job", "jobs", "listed", "upload"]

LARGEST_LIMIT = 1000
"""The most documents or jobs of one answer."""
JOBS_CURSOR = "[0-9]{1,18}"
_MOST_JOBS = 100
_LONGEST_NAME = 200
_TAGS = re.compile("#[0-9a-f]{16}$")  # of metadata, behind a path; see `pages.identity.document_id`


async def upload(request: Request, service: Service) -> Response:
    """Take a file. The answer is sent once the file and its job are on the disk; the job stores its pages."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise RequestError(415, "send the file as multipart/form-data, such as curl -F file=@report.pdf", "not_a_form")
    async with request.form(max_files=1, max_fields=len(UPLOAD["properties"])) as form:
        fields: dict[str, Any] = {name: value for name, value in form.multi_items() if name != "file"}
        file = form.get("file")
        if not isinstance(file, UploadFile) or len(form.multi_items()) != len(fields) + 1:
            raise RequestError(400, "the form must have one file, in the field 'file'", "missing_field")
        check({**fields, "file": ""}, UPLOAD, "the form")
        metadata, document_id = _metadata(fields.get("metadata")), fields.get("document_id")
        work = partial(_kept, service, file.file, file.filename or "", metadata, document_id)
        taken = await service.documents.run(work)
    location = {"Location": f"/v1/jobs/{taken.id}"}
    return JSONResponse(_shown(service, taken), 202, headers=location)


async def listed(request: Request, service: Service) -> Response:
    """The documents of the store by their ids, with their names and numbers of pages."""
    limit, after = _limit(request, LARGEST_LIMIT), request.query_params.get("cursor")
    counts = await service.documents.run(partial(service.current.use, lambda store: store.documents()))
    names = await service.documents.run(service.jobs.uploads.names)
    ids = sorted(counts)
    begin = 0 if after is None else bisect_right(ids, after)
    shown = ids[begin : begin + limit]
    documents = [
        {
            "document_id": document,
            "name": names.get(document) or file_name(_TAGS.sub("", document)),
            "uploaded": document in names,
            "pages": counts[document],
        }
        for document in shown
    ]
    return JSONResponse({"documents": documents, "next_cursor": shown[-1] if begin + limit < len(ids) else None})


async def delete(request: Request, service: Service) -> Response:
    """Remove a document: its pages, and its file if it was uploaded."""
    document_id = request.path_params["id"]
    removed = await service.documents.run(partial(service.jobs.delete, document_id))
    if removed is None:
        raise RequestError(
            404, f"there is no document {document_id!r}; GET /v1/documents lists them", "no_such_document"
        )
    return JSONResponse({"document_id": document_id, "removed": removed})


async def jobs(request: Request, service: Service) -> Response:
    """The last jobs, the newest first."""
    limit, cursor = _limit(request, _MOST_JOBS), request.query_params.get("cursor")
    if cursor is not None and not re.fullmatch(JOBS_CURSOR, cursor):
        raise RequestError(400, f"cursor must be the next_cursor of an earlier answer, got {cursor[:40]!r}")
    before = None if cursor is None else int(cursor)
    found, last = await service.documents.run(partial(service.jobs.uploads.jobs, limit=limit, before=before))
    cursor = None if last is None else str(last)
    return JSONResponse({"jobs": [_shown(service, one) for one in found], "next_cursor": cursor})


async def job(request: Request, service: Service) -> Response:
    """One job and its progress."""
    id_ = request.path_params["id"]
    found = await service.documents.run(partial(service.jobs.uploads.job, id_))
    if found is None:
        raise RequestError(
            404, f"there is no job {id_!r}; its document may have been deleted or replaced", "no_such_job"
        )
    return JSONResponse(_shown(service, found))


def _limit(request: Request, default: int) -> int:
    text = request.query_params.get("limit")
    if text is None:
        return default
    if not re.fullmatch("[0-9]{1,4}", text) or not 1 <= int(text) <= LARGEST_LIMIT:
        raise RequestError(400, f"limit must be a whole number from 1 to {LARGEST_LIMIT}, got {text[:40]!r}")
    return int(text)


def _kept(
    service: Service, content: IO[bytes], given: str, metadata: Mapping[str, Any], document_id: str | None
) -> Job:
    """Write a file and its job to the disk, after checking that the file can be opened."""
    uploads = service.jobs.uploads
    service.current.use(
        lambda store: store.require_pages(service.model)
    )  # a model that answers questions may make pages with other settings
    if document_id is not None and not uploads.of_document(document_id):
        raise RequestError(
            404,
            f"no uploaded document has the id {document_id!r}; leave document_id out for a new one",
            "no_such_document",
        )
    name = file_name(given)
    document_id = document_id or f"upload:{token_hex(16)}"
    content.seek(0, SEEK_END)
    if content.tell() > service.settings.max_upload_bytes:
        raise RequestError(413, f"{name} has more than {service.settings.max_upload_bytes:,} bytes", "too_long")
    file = uploads.keep(content, _suffix(name, service), most=service.settings.max_upload_total)
    try:
        pages = _page_count(uploads.folder / file, name, document_id, metadata)
        if pages > service.settings.max_pages:
            raise RequestError(
                413, f"{name} has {pages:,} pages; at most {service.settings.max_pages:,} are taken", "too_many_pages"
            )
        now = time.time()
        taken = Job(
            id=token_hex(16),
            document_id=document_id,
            file=file,
            name=name,
            metadata=metadata,
            state="queued",
            created=now,
            updated=now,
            pages=pages,
        )
        service.jobs.add(taken)
    except BaseException:
        uploads.discard(file)
        raise
    return taken


def _page_count(path: Path, name: str, document_id: str, metadata: Mapping[str, Any]) -> int:
    try:
        with source_of(path, name, document_id, metadata).open() as opened:
            opened.page(1).size  # noqa: B018 - opening an image reads nothing of it
            return opened.page_count
    except InputError as error:  # the path on the server is not the caller's business
        message = str(error).replace(str(path), name)
        if isinstance(error, ImageError) and not path.suffix:  # see `_suffix`: the name is of another type
            message = f"{name} is none of what is accepted: PDFs, Office files other than HTML, and images"
        raise RequestError(400, message, "unreadable") from error


def file_name(given: str) -> str:
    r"""The last part of a caller's file name, for people to read; it names no file of the server.

    >>> file_name("../../reports\\2024.pdf"), file_name("..")
    ('2024.pdf', 'upload')
    """
    name = PurePosixPath(given.replace("\\", "/")).name
    name = "".join(character for character in name if character.isprintable())[:_LONGEST_NAME].strip()
    return name if name.strip(".") else "upload"


def _suffix(name: str, service: Service) -> str:
    """The suffix of a file's name, if it is one of documents: the formats that have no other mark need it."""
    suffix = PurePosixPath(name).suffix.lower()
    formats = service.model.image_limits.image_formats
    return suffix if suffix in {".pdf", *UPLOADED_SUFFIXES, *image_suffixes(formats)} else ""


def _metadata(text: object) -> dict[str, Any]:
    if text is None:
        return {}
    metadata = parsed(str(text), "metadata")
    check(metadata, {"type": "object"}, "metadata")
    try:
        Entry(id="metadata", text="", metadata=metadata).to_payload()
    except StoreError as error:  # such as 1e999, which JSON's readers take for infinity
        raise RequestError(400, str(error)) from None
    return dict(metadata)


def _shown(service: Service, one: Job) -> dict[str, Any]:
    state = service.jobs.state(one)
    return {
        "id": one.id,
        "document_id": one.document_id,
        "name": one.name,
        "state": state,
        "pages": one.pages,
        "done": service.jobs.done(one),
        "created": _time(one.created),
        "updated": _time(one.updated),
        "error": None if state == "running" else one.error or None,
        "report": dict(one.report) or None,
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")
