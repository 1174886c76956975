"""The chaos suite's ZooKeeper server, for all tests."""

from chaos.environments.zookeeper_server import JAR, ZooKeeperServer

__all__ = ["JAR", "ZooKeeperServer"]
