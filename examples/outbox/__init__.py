"""At-least-once on top of the channel layer: an outbox table and consumers that are idempotent."""
