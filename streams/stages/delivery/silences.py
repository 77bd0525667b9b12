"""Acknowledgements and snoozes: which alerts somebody has silenced, and until when."""

from streams.signals import Alert
from streams.stages.delivery.messages import Action, AlertCommand

Target = tuple[str | None, ...]


class Silences:
    """The latest command of each target. At most `limit`; beyond it the oldest is forgotten."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.forgotten = 0
        self._held: dict[tuple[Action, Target], AlertCommand] = {}
        self._by_name: dict[str, dict[tuple[Action, Target], AlertCommand]] = {}
        """By the most telling name of the target, so that an alert meets only what may be about it."""

    def __len__(self) -> int:
        return len(self._held)

    def take(self, command: AlertCommand) -> None:
        """The order of arrival does not matter, nor does a second one. Of two at the same time the longer counts."""
        key = command.action, command.target
        before = self._held.get(key)
        if before is not None and _rank(before) > _rank(command):
            return
        self._held[key] = command
        self._by_name.setdefault(_name(command), {})[key] = command
        if len(self._held) > self.limit:
            self._forget(min(self._held.values(), key=lambda held: held.at_ms))
            self.forgotten += 1

    def prune(self, now_ms: int, before_ms: int) -> None:
        """Forgets what was said before `before_ms`, unless it is a snooze that still holds."""
        for command in list(self._held.values()):
            if command.at_ms < before_ms and (command.until_ms or 0) <= now_ms:
                self._forget(command)

    def _forget(self, command: AlertCommand) -> None:
        key, name = (command.action, command.target), _name(command)
        del self._held[key]
        del self._by_name[name][key]
        if not self._by_name[name]:
            del self._by_name[name]

    def is_acknowledged(self, alert: Alert, route: str, fired_ms: int) -> bool:
        """Whether somebody has taken note of this occurrence, which fired at that wall time.

        What had only begun by then (it was pending, or cooling down) nobody can have taken note of.
        """
        return any(command.action is Action.ACK and fired_ms <= command.at_ms for command in self._about(alert, route))

    def snoozed_until_ms(self, alert: Alert, route: str, now_ms: int) -> int:
        """When the last snooze that holds now ends; 0 where none holds."""
        ends = [command.until_ms or 0 for command in self._about(alert, route) if command.action is Action.SNOOZE]
        last = max(ends, default=0)
        return last if last > now_ms else 0

    def _about(self, alert: Alert, route: str) -> list[AlertCommand]:
        if not self._held:
            return []
        names = (f"a{alert.alert_id}", f"k{alert.cause}", f"c{alert.campaign_id}", f"r{route}")
        found = [command for name in names for command in self._by_name.get(name, {}).values()]
        return [command for command in found if command.covers(alert, route)]


def _rank(command: AlertCommand) -> tuple[int, int, str]:
    return command.at_ms, command.until_ms or 0, command.by


def _name(command: AlertCommand) -> str:
    if command.alert_id is not None:
        return f"a{command.alert_id}"
    if command.cause is not None:
        return f"k{command.cause}"
    return f"c{command.campaign_id}" if command.campaign_id is not None else f"r{command.route}"
