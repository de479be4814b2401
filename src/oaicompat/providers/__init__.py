"""The providers that are called, one package each: requests out of the neutral form, events out of bytes."""
