// The story told by kafkajs.
'use strict'

const assert = require('node:assert/strict')
const fs = require('node:fs')
const { setTimeout: sleep } = require('node:timers/promises')
const { Kafka, CompressionTypes, CompressionCodecs, ConfigResourceTypes, Partitioners, logLevel } = require('kafkajs')
const snappy = require('kafkajs-snappy')
const lz4 = require('lz4-napi')
const zstd = require('@mongodb-js/zstd')

const DEADLINE = 60_000
const CLIENT = 'kafkajs'

// kafkajs itself brings gzip; the other codecs are plugged in as its documentation shows.
CompressionCodecs[CompressionTypes.Snappy] = snappy
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: encoder => lz4.compressFrame(encoder.buffer),
  decompress: buffer => lz4.decompressFrame(buffer),
})
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: encoder => zstd.compress(encoder.buffer, 3),
  decompress: buffer => zstd.decompress(buffer),
})
const codecs = [CompressionTypes.None, CompressionTypes.GZIP, CompressionTypes.Snappy, CompressionTypes.LZ4, CompressionTypes.ZSTD]

const topic = `${CLIENT}-${process.env.LAYOUT}-${process.env.RUN}`
const groupId = `${topic}-group`
const kafka = new Kafka({ clientId: CLIENT, brokers: [process.env.BOOTSTRAP], logLevel: logLevel.ERROR })
const admin = kafka.admin()

const file = JSON.parse(fs.readFileSync(process.env.RECORDS, 'utf8'))
const decode = text => (text === null ? null : Buffer.from(text, 'base64'))
const partitions = Array.from({ length: file.partitions }, (_, partition) => partition)
const expected = partitions.map(() => [])
let produced = 0

// Headers are an object here, and a repeated name is an array: no null value, and no name between two of another.
const inOrder = names => names.every((name, i) => i === 0 || name === names[i - 1] || !names.slice(0, i).includes(name))
const given = file.records
  .map(({ key, value, headers }) => ({ key: decode(key), value: decode(value), headers: headers.map(([name, data]) => [name, decode(data)]) }))
  .filter(({ headers }) => headers.every(([, data]) => data !== null) && inOrder(headers.map(([name]) => name)))

const ok = step => console.log(`ok ${CLIENT} ${step}`)

async function until(what, attempt) {
  for (const end = Date.now() + DEADLINE; !(await attempt()); await sleep(20)) {
    assert(Date.now() < end, `not within ${DEADLINE} ms: ${what}`)
  }
}

// The next records to produce, each with the partition and the offset that it must get.
function round(count) {
  return given.slice(0, count).map(record => {
    const partition = produced % partitions.length
    const placed = { partition, offset: expected[partition].length, timestamp: file.start + 1000 * produced, ...record }
    produced += 1
    expected[partition].push(placed)
    return placed
  })
}

function compare(got, wanted) {
  for (const partition of partitions) {
    const here = got.filter(record => record.partition === partition)
    const want = wanted.filter(record => record.partition === partition)
    for (const [i, record] of want.entries()) assert.deepEqual(here[i], record)
    assert.equal(here.length, want.length, `records of partition ${partition}`)
  }
}

async function produce(records, compression) {
  const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner })
  await producer.connect()
  const messages = records.map(({ partition, key, value, timestamp, headers }) => {
    const byName = {}
    for (const [name, data] of headers) byName[name] = [...(byName[name] ?? []), data]
    return { partition, key, value, timestamp: String(timestamp), headers: byName }
  })
  const answers = await producer.send({ topic, messages, compression, acks: -1 })
  for (const { partition, errorCode, baseOffset } of answers) {
    assert.equal(errorCode, 0)
    assert.equal(Number(baseOffset), records.find(record => record.partition === partition).offset)
  }
  await producer.disconnect()
}

function taken(partition, { offset, timestamp, key, value, headers }) {
  const flat = Object.entries(headers ?? {}).flatMap(([name, data]) => [data].flat().map(one => [name, one]))
  return { partition, offset: Number(offset), timestamp: Number(timestamp), key, value, headers: flat }
}

// A member of a group that collects what it reads; each assignment starts at what was committed.
class Member {
  constructor(group = groupId) {
    this.records = []
    this.held = []
    this.consumer = kafka.consumer({ groupId: group, sessionTimeout: 6000, heartbeatInterval: 300, rebalanceTimeout: 6000, maxWaitTimeInMs: 200 })
    this.consumer.on(this.consumer.events.GROUP_JOIN, ({ payload }) => {
      this.records = []
      this.held = payload.memberAssignment[topic] ?? []
    })
    this.consumer.on(this.consumer.events.REBALANCING, () => (this.held = []))
  }

  async join(before = () => {}) {
    await this.consumer.connect()
    await this.consumer.subscribe({ topics: [topic], fromBeginning: true })
    await this.consumer.run({ autoCommit: false, eachMessage: async ({ partition, message }) => this.records.push(taken(partition, message)) })
    before(this.consumer)
    return this
  }

  async commit(offsets) {
    await this.consumer.commitOffsets(offsets.map(([partition, offset, metadata]) => ({ topic, partition, offset: String(offset), metadata })))
  }

  async leave() {
    await this.consumer.disconnect()
  }
}

const listed = async () => (await admin.listTopics()).includes(topic)
const groupListed = async () => (await admin.listGroups()).groups.some(group => group.groupId === groupId)
const committed = async () => (await admin.fetchOffsets({ groupId, topics: [topic] }))[0].partitions
const ends = () => expected.map((records, partition) => [partition, records.length])

async function create() {
  await admin.createTopics({
    topics: [{ topic, numPartitions: partitions.length, replicationFactor: 1, configEntries: [{ name: 'cleanup.policy', value: 'delete' }] }],
  })
  ok('create')
  await until('the topic in the list', listed)
  const [described] = (await admin.fetchTopicMetadata({ topics: [topic] })).topics
  assert.deepEqual(described.partitions.map(partition => partition.partitionId).sort(), partitions)
  assert(described.partitions.every(partition => partition.leader >= 0), 'a partition has no leader')
  ok('list')
}

async function consume() {
  for (const codec of codecs) await produce(round(), codec)
  const found = (await admin.fetchTopicOffsets(topic)).map(({ partition, offset }) => [partition, Number(offset)])
  assert.deepEqual(found.sort(), ends())
  ok('produce')

  // Two members share the partitions.
  const [first, second] = await Promise.all([new Member().join(), new Member().join()])
  await until('both members have partitions, and together every record', () =>
    first.held.length > 0 && second.held.length > 0 && first.held.length + second.held.length === partitions.length &&
      first.records.length + second.records.length >= produced)
  compare([...first.records, ...second.records], expected.flat())
  for (const member of [first, second]) {
    assert(member.records.every(record => member.held.includes(record.partition)), "a member got another's records")
    await member.commit(ends().filter(([partition]) => member.held.includes(partition)))
  }
  ok('consume')

  // One member leaves.
  await first.leave()
  await until('the other member has every partition', () => second.held.length === partitions.length)
  const more = round(6)
  await produce(more, CompressionTypes.None)
  await until('the records produced since', () => second.records.length >= more.length)
  compare(second.records, more)
  await second.commit(ends())
  ok('takeover')

  // While a member is there.
  const [group] = (await admin.describeGroups([groupId])).groups
  assert.deepEqual([group.errorCode, group.state, group.members.length], [0, 'Stable', 1])
  assert(await groupListed(), 'the group is not listed')
  assert.deepEqual((await committed()).map(({ partition, offset }) => [partition, Number(offset)]).sort(), ends())
  ok('groups')

  const middle = expected.map(records => Math.floor(records.length / 2))
  await second.commit(middle.map((offset, partition) => [partition, offset, 'half']))
  await second.leave()
  const third = await new Member().join()
  const rest = expected.flat().filter(record => record.offset >= middle[record.partition])
  await until('the rest', () => third.records.length >= rest.length)
  compare(third.records, rest)
  assert((await committed()).every(({ metadata }) => metadata === 'half'), 'the metadata of a commit is lost')
  await third.leave()
  ok('resume')
}

async function readFrom(partition, offset) {
  const reader = await new Member(`${groupId}-reader`).join(consumer => consumer.seek({ topic, partition, offset }))
  let found
  await until('a record', () => (found = reader.records.find(record => record.partition === partition && record.offset >= Number(offset))))
  await reader.leave()
  return found
}

async function administer() {
  const wanted = expected[1][Math.floor(expected[1].length / 2)]
  const found = (await admin.fetchTopicOffsetsByTimestamp(topic, wanted.timestamp - 500)).find(({ partition }) => partition === 1)
  assert.equal(Number(found.offset), wanted.offset)
  assert.deepEqual(await readFrom(1, found.offset), wanted)
  ok('seek')

  const resource = { type: ConfigResourceTypes.TOPIC, name: topic }
  await admin.alterConfigs({ validateOnly: false, resources: [{ ...resource, configEntries: [{ name: 'retention.ms', value: '123456789' }] }] })
  await until('the altered config reads back', async () => {
    const [answer] = (await admin.describeConfigs({ includeSynonyms: false, resources: [{ ...resource, configNames: ['retention.ms'] }] })).resources
    return answer.configEntries[0].configValue === '123456789'
  })
  ok('config')

  await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '5' }] })
  const starts = (await admin.fetchTopicOffsets(topic)).map(({ partition, low }) => [partition, Number(low)])
  assert.deepEqual(starts.sort(), [[0, 5], [1, 0], [2, 0]])
  assert.deepEqual(await readFrom(0, '5'), expected[0][5])
  ok('trim')

  await admin.deleteGroups([groupId, `${groupId}-reader`])
  assert(!(await groupListed()), 'the group is still listed')
  await admin.deleteTopics({ topics: [topic] })
  await until('the topic is gone from the list', async () => !(await listed()))
  ok('delete')
}

async function main() {
  await admin.connect()
  await create()
  await consume()
  await administer()
  await admin.disconnect()
}

main().catch(error => {
  console.log(error.stack)
  process.exit(1)
})
