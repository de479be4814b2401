"""What the log says of a failed attempt: as loud as somebody has to act on it.

One rule: a refused or denied credential is a warning, since only a person can mend it; a spent quota is told,
what passes by itself only to those who ask for more.
"""

from __future__ import annotations

import logging

from oaicompat.errors import UpstreamError
from oaicompat_server.pool import DENIED, REFUSED, Credential

logger = logging.getLogger("oaicompat")


def log_failure(credential: Credential, model: str, error: UpstreamError) -> None:
    """Log a failure of this credential with a model (or what else was asked for)."""
    account, message = credential.account, error.message
    if error.cause in REFUSED:
        logger.warning("credential %s is refused: %s", account, message)
    elif error.cause in DENIED:
        logger.warning("credential %s rests for %s: %s", account, model, message)
    elif error.cause == "quota":
        logger.info("credential %s has spent its quota for %s: %s", account, model, message)
    else:
        status = error.upstream_status or error.status
        logger.debug(
            "an attempt by %s for %s failed (%s, %s): %s",
            account,
            model,
            error.cause,
            status,
            message,
        )
