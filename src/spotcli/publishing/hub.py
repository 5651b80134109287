"""The hub: a dataset repository, created if it is missing, and one commit with all files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from spotcli.errors import Unfinished, UserError
from spotcli.redaction import redact

_CURES = {
    401: "log in with `hf auth login`, or set HF_TOKEN to a valid token",
    403: "use a token with write access to that organisation, or another name (--to)",
    404: "check the name (--to), and that the token may write there",
    409: "the dataset changed meanwhile: run the same command again, or use another name (--to)",
    412: "the dataset changed meanwhile: run the same command again",
    413: "split the file",
    429: "wait some minutes, and run the same command again",
}
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def check_name(name: str, *, option: str = "--to") -> None:
    """Check the name of a dataset.

    Args:
        option: where it was given.

    Raises:
        UserError: it is not ORG/NAME.
    """
    if not _NAME.fullmatch(name) or ".." in name or "--" in name or name.endswith(".git") or len(name) > 96:
        raise UserError(f"expected ORG/NAME, got '{name}'", where=option, cure=f"such as {option} my-org/my-pairs")


def check_token() -> None:
    """Check that an access token of the Hugging Face hub is set.

    Raises:
        UserError: none is set.
    """
    from huggingface_hub import get_token

    if not get_token():
        raise UserError(
            "uploading requires an access token of the Hugging Face hub", where="HF_TOKEN", cure="run `hf auth login`"
        )


def upload(name: str, files: Mapping[str, bytes], *, public: bool, message: str) -> str:
    """Upload files in one commit; a dataset that is missing is created before, a new one is private unless ``public``.

    Returns:
        The address of the dataset.

    Raises:
        UserError: no token, no right to write, a public dataset without ``public``, or the hub refuses the files.
        Unfinished: the hub cannot be reached, or failed.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    check_token()
    api = HfApi()
    with _errors(name):
        try:
            is_private = bool(api.repo_info(name, repo_type="dataset").private)
        except RepositoryNotFoundError:
            api.create_repo(name, repo_type="dataset", private=not public, exist_ok=False)
        else:
            if not is_private and not public:
                raise UserError("the dataset is public", where=name, cure="add --public, or use another name (--to)")
        operations = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=content) for path, content in files.items()]
        api.create_commit(name, operations, repo_type="dataset", commit_message=message)
    return f"{api.endpoint}/datasets/{name}"


@contextmanager
def _errors(name: str) -> Iterator[None]:
    """Raise what the hub or the network refuses as one line with a cure; the token is in no message.

    Raises:
        UserError: the hub refuses the request.
        Unfinished: the hub cannot be reached, or failed.
    """
    from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]  # the HTTP library's own

    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code
        reason = redact(" ".join(str(error.server_message or "").split())[:200])
        text = f"the hub refuses the upload ({status}{': ' + reason if reason else ''}); nothing was uploaded"
        if status >= 500:
            raise Unfinished(text, where=name, cure="run the same command again later") from None
        raise UserError(text, where=name, cure=_CURES.get(status, "check the name and the files")) from None
    except (HTTPError, OSError) as error:
        reason = redact(" ".join(str(error).split())[:200]) or type(error).__name__
        cure = "check the network and HF_HUB_OFFLINE, and run the same command again"
        raise Unfinished(f"the hub cannot be reached ({reason}); nothing was uploaded", where=name, cure=cure) from None
    except ValueError as error:
        reason = redact(" ".join(str(error).split())[:200])
        raise UserError(
            f"the hub refuses the upload: {reason}", where=name, cure="check the name and the card"
        ) from None
