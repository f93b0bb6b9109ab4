"""What a case's script is given: one broker to talk to, names of its own, and a transcript that is compared afterwards."""

import time
from dataclasses import dataclass
from typing import Any

from .connection import ANSWER_SECONDS, Closed, Connection, NoAnswer
from .normalise import Symbols, normalise
from .schema import ZERO_UUID, Malformed

CLOSED, NO_ANSWER = "<connection closed>", "<no answer>"
SETTLE_SECONDS = 10


@dataclass
class Step:
    label: str
    api: str
    version: int
    outcome: Any


class Abandoned(Exception):
    """The script cannot go on: the broker did not do what the rest builds on."""


class Scenario:
    def __init__(self, broker, case, version, run_id):
        self.broker, self.case, self.version = broker, case, version
        self.prefix = f"{run_id}{case.api}-{case.name}-v{version}."
        self.symbols = Symbols(broker, self.prefix)
        self.steps = []
        self._labels = {}
        self._connections = []
        self._main = None

    # --- names -------------------------------------------------------------------------------------------------------------------------

    def name(self, text):
        """A topic, group or other name that no other case uses; shown without its prefix in what is compared."""
        return self.prefix + text

    def version_of(self, api):
        """The case's own version for its own API, the newest that every broker serves for the others."""
        return self.version if api == self.case.api else self.newest(api)

    def newest(self, api):
        return self.broker.common_versions.get(api, (0, 0))[1]

    # --- talking -----------------------------------------------------------------------------------------------------------------------

    def connection(self, client_id="parity"):
        connection = Connection(self.broker.address, self.broker.schemas, client_id)
        self._connections.append(connection)
        return connection

    @property
    def main(self):
        if self._main is None:
            self._main = self.connection()
        return self._main

    def send(self, api, version=None, label=None, **fields):
        """One request whose answer is compared. Returns the answer as it came, or None where there was none."""
        return self.start(api, version, label, **fields).finish()

    def start(self, api, version=None, label=None, on=None, encode_as=None, decode_as=None, client_id=..., seconds=ANSWER_SECONDS, own=False, compared=True, **fields):
        """Sends now; `.finish()` waits for the answer. For requests that the broker holds back. `own` is for listings of everything: only
        what this case made is compared."""
        version = self.version_of(api) if version is None else version
        step = Step(self._label(label or api) if compared else api, api, version, None)
        if compared:
            self.steps.append(step)
        connection = on or self.main
        schema = self.broker.schemas[api]
        frame, correlation_id = connection.frame(schema, version, fields, encode_as=encode_as, client_id=client_id)
        pending = Pending(self, connection, schema, version if decode_as is None else decode_as, correlation_id, step, seconds, own)
        try:
            connection.write(frame)
        except Closed:
            pending.lost(CLOSED)
        return pending

    def ask(self, api, version=None, on=None, **fields):
        """A request that prepares the scene, at its newest version: the answer is not compared."""
        version = self.newest(api) if version is None else version
        connection = on or self.main
        schema = self.broker.schemas[api]
        frame, correlation_id = connection.frame(schema, version, fields)
        try:
            connection.write(frame)
            return connection.read(schema, version, correlation_id)
        except (Closed, NoAnswer, Malformed) as problem:
            raise Abandoned(f"{api} v{version}: {type(problem).__name__} {problem}") from problem

    def until(self, api, done, version=None, label=None, seconds=SETTLE_SECONDS, on=None, own=False, **fields):
        """Asks again until `done(answer)`; the last answer is compared. For what a broker does a moment later."""
        version = self.version_of(api) if version is None else version
        answer = self.settle(api, done, version, seconds, on, **fields)
        step = Step(self._label(label or api), api, version, normalise(self, api, answer, own))
        self.steps.append(step)
        return answer

    def settle(self, api, done, version=None, seconds=SETTLE_SECONDS, on=None, **fields):
        """`until` without comparing."""
        deadline = time.monotonic() + seconds
        while True:
            answer = self.ask(api, version, on=on, **fields)
            if done(answer) or time.monotonic() > deadline:
                return answer
            time.sleep(0.02)

    def raw(self, data, label="raw", on=None, seconds=ANSWER_SECONDS, end_of_input=False, first=None):
        """Bytes as they are; what comes back (a frame's bytes or the `first` of them, or that the connection was closed) is compared."""
        connection = on or self.connection()
        step = Step(self._label(label), "raw", 0, None)
        self.steps.append(step)
        try:
            connection.write(data)
            if end_of_input:
                connection.end_of_input()
            step.outcome = {"frame": connection.read_frame(seconds)[:first].hex()}
        except Closed:
            step.outcome = CLOSED
        except NoAnswer:
            step.outcome = NO_ANSWER
        return step.outcome

    def note(self, label, value):
        """A fact that the script worked out, compared like an answer."""
        self.steps.append(Step(self._label(label), "note", 0, {"value": value}))

    def _label(self, text):
        count = self._labels[text] = self._labels.get(text, 0) + 1
        return text if count == 1 else f"{text}#{count}"

    # --- scenery -----------------------------------------------------------------------------------------------------------------------

    def topic(self, text, partitions=1, configs=None):
        """Creates a topic, waits until it can be used, and returns its name."""
        name = self.name(text)
        answer = self.ask(
            "CreateTopics",
            Topics=[
                {
                    "Name": name,
                    "NumPartitions": partitions,
                    "ReplicationFactor": 1,
                    "Configs": [{"Name": k, "Value": v} for k, v in (configs or {}).items()],
                }
            ],
            timeoutMs=10_000,
        )
        if answer["Topics"][0]["ErrorCode"]:
            raise Abandoned(f"the topic {text} was not created: {answer['Topics'][0]}")
        self.ready(name, partitions)
        return name

    def ready(self, name, partitions=1):
        def usable(answer):
            topic = answer["Topics"][0]
            return len(topic["Partitions"]) == partitions and all(p["LeaderId"] >= 0 and not p["ErrorCode"] for p in topic["Partitions"])

        answer = self.settle("Metadata", usable, Topics=[{"Name": name, "TopicId": ZERO_UUID}], AllowAutoTopicCreation=False)
        if not usable(answer):
            raise Abandoned(f"the topic {name} is not usable: {answer}")
        self.symbols.learn_topic(answer["Topics"][0]["TopicId"], name)
        # Metadata may know a partition a moment before its broker leads it.
        self.settle(
            "ListOffsets",
            lambda answer: all(p["ErrorCode"] == 0 for p in answer["Topics"][0]["Partitions"]),
            ReplicaId=-1,
            Topics=[{"Name": name, "Partitions": [{"PartitionIndex": i, "Timestamp": -1} for i in range(partitions)]}],
        )

    def topic_id(self, name):
        return self.symbols.topic_ids.get(name, ZERO_UUID)

    def produce(self, name, *batches, partition=0, acks=-1):
        """Appends batches, each in a request of its own; returns the base offsets."""
        offsets = []
        for data in batches:
            answer = self.ask(
                "Produce",
                Acks=acks,
                TimeoutMs=10_000,
                TopicData=[
                    {"Name": name, "TopicId": self.topic_id(name), "PartitionData": [{"Index": partition, "Records": data}]}
                ],
            )
            found = answer["Responses"][0]["PartitionResponses"][0]
            if found["ErrorCode"]:
                raise Abandoned(f"a batch for {name} was refused: {found}")
            offsets.append(found["BaseOffset"])
        return offsets

    def end(self):
        for connection in self._connections:
            connection.close()


class Pending:
    """A request whose answer has not been read yet."""

    def __init__(self, scenario, connection, schema, version, correlation_id, step, seconds, own):
        self.scenario, self.connection, self.schema, self.version = scenario, connection, schema, version
        self.correlation_id, self.step, self.seconds, self.own = correlation_id, step, seconds, own
        self.over = False

    def lost(self, outcome):
        self.step.outcome, self.over = outcome, True
        self.forget()

    def forget(self):
        if self.scenario._main is self.connection:
            self.scenario._main = None

    def finish(self):
        if self.over:
            return None
        self.over = True
        try:
            answer = self.connection.read(self.schema, self.version, self.correlation_id, self.seconds)
        except Closed:
            self.step.outcome = CLOSED
        except NoAnswer:
            self.step.outcome = NO_ANSWER
        except Malformed as problem:
            self.step.outcome = f"<malformed answer: {problem}>"
        else:
            self.step.outcome = normalise(self.scenario, self.schema.name, answer, self.own)
            return answer
        self.forget()
        return None
