"""A chat on several Redis shards and two servers: `python -m cluster_layer.demo`."""
