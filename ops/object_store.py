"""The bucket as the settings describe it, for every process that has to do with media.

Credentials: GCS_CREDENTIALS_JSON, a service account's key or the path of one; without it, in production, those that
the machine has (Application Default Credentials), which sign by IAM's signBlob and so need GCS_SIGNER_EMAIL where the
credentials do not say whose they are (the service account needs roles/iam.serviceAccountTokenCreator on itself). In dev
and test a key is made in the data directory: the emulator accepts any signature.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import google.auth
import structlog
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import iam
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import DefaultCredentialsError
from google.auth.transport.requests import Request
from google.cloud.storage import Client
from google.oauth2 import service_account

from models.media.gateway import GcsStore, NoStore
from ops.settings import Settings

SCOPES: Final = ("https://www.googleapis.com/auth/devstorage.read_write",)
TOKEN_URI: Final = "https://oauth2.googleapis.com/token"
LOCAL_PROJECT: Final = "local"
LOCAL_EMAIL: Final = "media@local.iam.gserviceaccount.com"
KEY_BITS: Final = 2048

log = structlog.get_logger(__name__)


def object_store(settings: Settings) -> GcsStore | NoStore:
    """The media bucket. It connects with the first call."""
    if settings.gcs_endpoint is None and settings.packstream_env == "prod":
        try:
            credentials, project = machine_credentials(settings)
        except DefaultCredentialsError:
            log.warning("no_media_storage", hint="set GCS_CREDENTIALS_JSON; media answer 503 until then")
            return NoStore(settings.gcs_bucket)
        client = Client(project=project, credentials=credentials)
        return GcsStore(client, settings.gcs_bucket, signer=_signer(credentials, settings))
    info = _key_info(settings) or json.loads(local_key_file(Path(settings.data_dir) / "gcs").read_text())
    client = Client(
        project=LOCAL_PROJECT,
        credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
        client_options={"api_endpoint": settings.gcs_endpoint} if settings.gcs_endpoint else None,
    )
    online = settings.gcs_endpoint is not None
    return GcsStore(client, settings.gcs_bucket, signer=_from_key(info), online=online)


def _key_info(settings: Settings) -> dict[str, Any] | None:
    """The service account's key of the settings, if they have one."""
    given = settings.gcs_credentials_json
    if not given:
        return None
    info: dict[str, Any] = json.loads(given if given.lstrip().startswith("{") else Path(given).read_text())
    return info


def _from_key(info: dict[str, Any], scopes: Sequence[str] = SCOPES) -> Any:
    return service_account.Credentials.from_service_account_info(info, scopes=scopes)  # type: ignore[no-untyped-call]


def machine_credentials(settings: Settings, scopes: Sequence[str] = SCOPES) -> tuple[Any, str | None]:
    """Google's credentials by the settings' key or of the machine, and the project; DefaultCredentialsError: none."""
    info = _key_info(settings)
    if info is not None:
        return _from_key(info, scopes), info.get("project_id")
    return google.auth.default(scopes=scopes)


def _signer(credentials: Any, settings: Settings) -> Any:
    """Credentials that sign: those that hold a key sign by themselves, the others ask IAM."""
    if isinstance(credentials, service_account.Credentials):
        return credentials
    email = settings.gcs_signer_email or getattr(credentials, "service_account_email", None)
    if not email or email == "default":
        raise SystemExit("packstream: set GCS_SIGNER_EMAIL: these credentials do not say which account signs URLs")
    signer = iam.Signer(Request(), credentials, email)  # type: ignore[no-untyped-call]
    return service_account.Credentials(signer, email, TOKEN_URI)  # type: ignore[no-untyped-call]


def local_key_file(directory: Path) -> Path:
    """A service account's key of nobody, made once in `directory`; who comes first makes it."""
    path = directory / "credentials.json"
    if path.exists():
        return path
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=directory, delete=False) as draft:
        json.dump(_new_key(), draft)
    try:
        os.link(draft.name, path)
    except FileExistsError:
        pass  # another process was faster: its key is the one
    finally:
        os.unlink(draft.name)
    return path


def _new_key() -> dict[str, str]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    return {
        "type": "service_account",
        "project_id": LOCAL_PROJECT,
        "private_key_id": "local",
        "private_key": pem,
        "client_email": LOCAL_EMAIL,
        "token_uri": TOKEN_URI,
    }
