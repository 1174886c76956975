"""The chaos suite's ZooKeeper server, for all tests."""

from chaos.environments.zookeeper import JAR, ZooKeeperServer

__all__ = ["JAR", "ZooKeeperServer"]
