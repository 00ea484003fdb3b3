"""One process a schedule: started again when it ended, later when it failed, and none left behind."""

from dataclasses import dataclass, field

from tidegate.trigger.keeper import AGAIN_SECONDS, Keeper


@dataclass
class Played:
    """A process whose end is set by hand."""

    name: str
    code: int | None = None
    told: list[str] = field(default_factory=list)

    def poll(self) -> int | None:
        return self.code

    def terminate(self) -> None:
        self.told.append("terminate")

    def wait(self) -> int:
        self.told.append("wait")
        return 0


@dataclass
class Machine:
    now: float = 0.0
    made: list[Played] = field(default_factory=list)

    def spawn(self, name: str) -> Played:
        self.made.append(Played(name))
        return self.made[-1]

    def keeper(self) -> Keeper:
        return Keeper(self.spawn, lambda: self.now)


def test_each_schedule_has_one_process_and_another_when_it_ended() -> None:
    machine = Machine()
    keeper = machine.keeper()
    for _ in range(3):
        keeper.look(["a", "b"])
    assert [p.name for p in machine.made] == ["a", "b"]
    machine.made[0].code = 0
    keeper.look(["a", "b", "c"])
    assert [p.name for p in machine.made] == ["a", "b", "a", "c"]


def test_one_that_failed_is_tried_again_later() -> None:
    machine = Machine()
    keeper = machine.keeper()
    keeper.look(["a"])
    machine.made[0].code = 2
    keeper.look(["a"])
    machine.now = AGAIN_SECONDS - 1
    keeper.look(["a"])
    assert len(machine.made) == 1
    machine.now = AGAIN_SECONDS
    keeper.look(["a"])
    assert len(machine.made) == 2


def test_what_is_no_longer_to_run_is_not_started_and_all_end_with_the_keeper() -> None:
    machine = Machine()
    keeper = machine.keeper()
    with keeper.kept():
        keeper.look(["a", "b"])
        machine.made[0].code = 0
        keeper.look(["b"])
    assert [p.told for p in machine.made] == [[], ["terminate", "wait"]]
