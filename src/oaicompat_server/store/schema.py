"""The tables of the state file, and how a file of an earlier version becomes one of this version.

One rule: a version that was released is never edited; what changes is a new entry at the end of `MIGRATIONS`,
whoever the table belongs to. The file's `user_version` is the number of entries it has seen.
"""

from __future__ import annotations

from collections.abc import Sequence

APPLICATION_ID = 0x6F616963
"""Marks a state file as ours ("oaic")."""

# A body lies apart from its row, and so do frames: what is used often would be written anew with every use.
# Keys are not used twice (AUTOINCREMENT), so that a late mark of use does not hit another row. An item with
# both a response and a conversation is kept for either. Ids are bytes: not all that a client sends is Unicode.
_STATE = (
    """
    CREATE TABLE responses (
        key INTEGER PRIMARY KEY AUTOINCREMENT,
        owner BLOB NOT NULL,
        id BLOB NOT NULL,
        created REAL NOT NULL,
        previous BLOB NOT NULL,
        conversation BLOB NOT NULL,
        running_until REAL NOT NULL,
        used REAL NOT NULL,
        UNIQUE (owner, id)
    )
    """,
    "CREATE INDEX responses_used ON responses (used)",
    """
    CREATE TABLE bodies (
        response INTEGER PRIMARY KEY REFERENCES responses (key) ON DELETE CASCADE,
        body BLOB NOT NULL
    )
    """,
    """
    CREATE TABLE frames (
        key INTEGER PRIMARY KEY,
        response INTEGER NOT NULL REFERENCES responses (key) ON DELETE CASCADE,
        last INTEGER NOT NULL,
        packed BLOB NOT NULL
    )
    """,
    "CREATE INDEX frames_response ON frames (response, last)",
    """
    CREATE TABLE conversations (
        key INTEGER PRIMARY KEY AUTOINCREMENT,
        owner BLOB NOT NULL,
        id BLOB NOT NULL,
        created REAL NOT NULL,
        metadata BLOB NOT NULL,
        used REAL NOT NULL,
        UNIQUE (owner, id)
    )
    """,
    "CREATE INDEX conversations_used ON conversations (used)",
    """
    CREATE TABLE items (
        key INTEGER PRIMARY KEY AUTOINCREMENT,
        owner BLOB NOT NULL,
        id BLOB NOT NULL,
        response INTEGER REFERENCES responses (key),
        output INTEGER NOT NULL,
        conversation INTEGER REFERENCES conversations (key),
        body BLOB NOT NULL
    )
    """,
    "CREATE INDEX items_id ON items (owner, id)",
    "CREATE INDEX items_response ON items (response) WHERE response IS NOT NULL",
    "CREATE INDEX items_conversation ON items (conversation) WHERE conversation IS NOT NULL",
    """
    CREATE TABLE deleted_responses (
        owner BLOB NOT NULL,
        id BLOB NOT NULL,
        used REAL NOT NULL,
        PRIMARY KEY (owner, id)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX deleted_responses_used ON deleted_responses (used)",
)

_COOLDOWNS = (
    """
    CREATE TABLE cooldowns (
        name BLOB PRIMARY KEY,
        until REAL NOT NULL,
        body BLOB NOT NULL
    ) WITHOUT ROWID
    """,
)

# Signatures are counted by their keys, and their bytes in `upto`, which has those of all that were kept so far:
# the first and the last row tell how much is kept.
_SIGNATURES = (
    """
    CREATE TABLE signatures (
        key INTEGER PRIMARY KEY,
        owner BLOB NOT NULL,
        id BLOB NOT NULL,
        until REAL NOT NULL,
        upto INTEGER NOT NULL,
        backend BLOB NOT NULL,
        value BLOB NOT NULL,
        UNIQUE (owner, id)
    )
    """,
    "CREATE INDEX signatures_until ON signatures (until)",
)

MIGRATIONS: Sequence[Sequence[str]] = (_STATE, _COOLDOWNS, _SIGNATURES)
"""The statements of each version."""
