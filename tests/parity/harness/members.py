"""Members of classic groups, each on a connection of its own, for scripts that need several."""

import struct

MEMBER_ID_REQUIRED = 79


def subscription(user_data, topics=()):
    """What a consumer says when it joins. Kafka parses it for protocol type `consumer`, and runs out of memory on what only looks like it."""
    out = struct.pack(">hi", 0, len(topics))
    for topic in topics:
        out += struct.pack(">h", len(topic)) + topic.encode()
    return out + struct.pack(">i", len(user_data)) + user_data


class Member:
    def __init__(self, b, group, name, instance=None, protocols=None, protocol_type="consumer", session=30_000, rebalance=30_000, compared=True):
        self.b, self.group, self.name, self.instance, self.compared = b, group, name, instance, compared
        self.protocols = protocols or {"range": subscription(name.encode())}
        self.protocol_type, self.session, self.rebalance = protocol_type, session, rebalance
        self.connection = b.connection(client_id=name)
        self.id, self.generation, self.leads = "", -1, False

    def _start(self, api, label, **fields):
        return self.b.start(api, on=self.connection, label=f"{self.name} {label}", compared=self.compared, **fields)

    def start_join(self, label="joins", **changed):
        """A join that may be held back; in the versions that hand out an id first, the first answer is awaited."""
        pending = self._start_join_once(label, **changed)
        if self.id or self.instance or self.b.version_of("JoinGroup") < 4:
            return pending
        answer = pending.finish()
        if answer and answer["ErrorCode"] == MEMBER_ID_REQUIRED:
            self.id = answer["MemberId"]
        return self._start_join_once(f"{label} with its id", **changed)

    def _start_join_once(self, label, **changed):
        fields = {
            "GroupId": self.group,
            "SessionTimeoutMs": self.session,
            "RebalanceTimeoutMs": self.rebalance,
            "MemberId": self.id,
            "GroupInstanceId": self.instance,
            "ProtocolType": self.protocol_type,
            "Protocols": [{"Name": k, "Metadata": v} for k, v in self.protocols.items()],
        }
        return self._start("JoinGroup", label, **(fields | changed))

    def joined(self, pending):
        answer = pending.finish()
        if answer and not answer["ErrorCode"]:
            self.id, self.generation = answer["MemberId"], answer["GenerationId"]
            self.leads = answer["Leader"] == self.id
        return answer

    def join(self, label="joins", **changed):
        return self.joined(self.start_join(label, **changed))

    def start_sync(self, assignments=None, label="syncs", **changed):
        """`assignments` maps members to bytes."""
        fields = {
            "GroupId": self.group,
            "GenerationId": self.generation,
            "MemberId": self.id,
            "GroupInstanceId": self.instance,
            "ProtocolType": self.protocol_type,
            "ProtocolName": next(iter(self.protocols)),
            "Assignments": [{"MemberId": m.id, "Assignment": a} for m, a in (assignments or {}).items()],
        }
        return self._start("SyncGroup", label, **(fields | changed))

    def sync(self, assignments=None, label="syncs", **changed):
        return self.start_sync(assignments, label, **changed).finish()

    def heartbeat(self, label="heartbeats", **changed):
        fields = {"GroupId": self.group, "GenerationId": self.generation, "MemberId": self.id, "GroupInstanceId": self.instance}
        return self._start("Heartbeat", label, **(fields | changed)).finish()

    def leave(self, label="leaves", **changed):
        fields = {
            "GroupId": self.group,
            "MemberId": self.id,
            "Members": [{"MemberId": self.id, "GroupInstanceId": self.instance, "Reason": "the script says so"}],
        }
        return self._start("LeaveGroup", label, **(fields | changed)).finish()

    def commit(self, topic, offset, label="commits", partition=0, **changed):
        fields = {
            "GroupId": self.group,
            "GenerationIdOrMemberEpoch": self.generation,
            "MemberId": self.id,
            "GroupInstanceId": self.instance,
            "RetentionTimeMs": -1,
            "Topics": [
                {
                    "Name": topic,
                    "TopicId": self.b.topic_id(topic),
                    "Partitions": [{"PartitionIndex": partition, "CommittedOffset": offset, "CommittedMetadata": "m"}],
                }
            ],
        }
        return self._start("OffsetCommit", label, **(fields | changed)).finish()


def state_of(b, group):
    return b.ask("DescribeGroups", Groups=[group])["Groups"][0]["GroupState"]


def wait_for(b, group, state, seconds=10):
    """Until the group is in that state."""
    answer = b.settle("DescribeGroups", lambda a: a["Groups"][0]["GroupState"] == state, seconds=seconds, Groups=[group])
    return answer["Groups"][0]["GroupState"] == state


def alone(b, group, name="one", **more):
    """A stable group of one."""
    member = Member(b, group, name, **more)
    member.join()
    member.sync({member: f"work of {name}".encode()})
    return member


def together(b, group, *names, compared=True, **more):
    """A stable group of several, the first the leader."""
    members = [Member(b, group, name, compared=compared, **more) for name in names]
    members[0].join()
    members[0].sync({members[0]: b"all of it"})
    for count in range(1, len(members)):
        gather(b, group, members[:count], members[count])
    return members


def gather(b, group, present, newcomer):
    """`newcomer` joins a stable group, and everybody comes along."""
    pending = newcomer.start_join()
    wait_for(b, group, "PreparingRebalance")
    again = [member.start_join("joins again") for member in present]
    for member, waiting in zip(present, again):
        member.joined(waiting)
    newcomer.joined(pending)
    everybody = [*present, newcomer]
    waiting = [member.start_sync(label="waits for its work") for member in everybody[1:]]
    everybody[0].sync({member: f"work of {member.name}".encode() for member in everybody})
    for one in waiting:
        one.finish()
    return everybody
