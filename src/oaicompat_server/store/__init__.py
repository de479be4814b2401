"""What the gateway keeps between requests. Every row has an owner, and somebody else's id is not found."""

from oaicompat_server.store.signatures import SignatureStore

__all__ = ["SignatureStore"]
