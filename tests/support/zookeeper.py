"""The chaos suite's ZooKeeper servers, one or an ensemble, for all tests."""

from chaos.environments.proxy import ProxyThread
from chaos.environments.zookeeper import ZooKeeperCluster, own_ensemble
from chaos.environments.zookeeper_server import JAR, ZooKeeperServer

__all__ = ["JAR", "ProxyThread", "ZooKeeperCluster", "ZooKeeperServer", "own_ensemble"]
