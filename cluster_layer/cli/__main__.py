"""`python -m cluster_layer.cli` is `cluster-layer`."""

from cluster_layer.cli.main import main

main(prog_name="cluster-layer")
