#!/usr/bin/env node
'use strict';
// Publishes, subscribes, and comes back to a subscription whose stream was cut. The .proto file is read as it is; no
// code is generated.
//
//     npm ci
//     node client.js [HOST:PORT]
//
// Exit code 1 and a sentence if something is not as it must be.

const assert = require('node:assert/strict');
const { randomUUID } = require('node:crypto');
const { once } = require('node:events');
const path = require('node:path');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');

const PROTO = path.join(__dirname, '../../../../grpc/proto/sidecar.proto');
const SECONDS = 20; // longest wait for anything

// Numbers of messages are 64 bits long; in JavaScript they are exact up to 2^53, which no topic reaches.
const options = { keepCase: true, longs: Number, enums: String, defaults: true, oneofs: true };
const description = protoLoader.loadSync(PROTO, options);
const { SidecarService } = grpc.loadPackageDefinition(description).nexusd.sidecar;

const deadline = () => new Date(Date.now() + 1000 * SECONDS);

/** A call with one answer, as a promise. */
function ask(client, name, request) {
  return new Promise((resolve, reject) => {
    client[name](request, { deadline: deadline() }, (error, answer) => (error ? reject(error) : resolve(answer)));
  });
}

const publish = (client, request) => ask(client, 'Publish', request);

/** Publishes many; returns their answers, one for each, in their order. */
async function publishAll(client, requests) {
  const call = client.PublishStream({ deadline: deadline() });
  const write = async () => {
    for (const request of requests) {
      if (!call.write(request)) await once(call, 'drain');
    }
    call.end();
  };
  const answers = [];
  const read = async () => {
    for await (const answer of call) answers.push(answer);
  };
  await Promise.all([write(), read()]);
  return answers;
}

/** A subscription: its events one by one, and what is needed to come back to it. */
class Subscription {
  /** `call` is a stream of Subscribe or ResumeSubscribe. An application gives it no deadline. */
  static async begin(client, call) {
    const subscription = new Subscription();
    Object.assign(subscription, { client, call, events: call[Symbol.asyncIterator](), had: {} });
    const { subscription_info: info } = await subscription.next('subscription_info');
    return Object.assign(subscription, { info, id: info.subscription_id });
  }

  static to(client, ...topics) {
    return Subscription.begin(client, client.Subscribe({ topics, client_id: 'client.js' }, { deadline: deadline() }));
  }

  static resume(client, request) {
    return Subscription.begin(client, client.ResumeSubscribe(request, { deadline: deadline() }));
  }

  /** The next event, which must be of one of these kinds. */
  async next(...kinds) {
    const { value: event, done } = await this.events.next();
    assert(!done, `a ${kinds.join(' or ')} comes, not the end`);
    assert(kinds.includes(event.event), `a ${kinds.join(' or ')} comes, not ${JSON.stringify(event)}`);
    const message = event.message ?? event.replay_message ?? event.retained_message;
    if (message) this.had[message.topic] = message.sequence_number;
    return event;
  }

  /** As if the connection broke: the daemon keeps the subscription for a while. */
  breakOff() {
    this.call.on('error', () => {}); // that it is cancelled
    this.call.cancel();
  }

  /** Says that nobody will come back. */
  async end() {
    const ended = await ask(this.client, 'Unsubscribe', { subscription_id: this.id });
    assert(ended.success, `a subscription can be ended: ${ended.error_message}`);
    while (!(await this.events.next()).done); // the rest, which was under way; then the stream ends
  }
}

async function live(client, topic) {
  const subscription = await Subscription.to(client, `${topic}/+`);
  console.log(`subscribed to ${subscription.info.topics[0]} as ${subscription.id}`);
  const headers = [{ key: 'unit', value: Buffer.from('°C') }, { key: 'raw', value: Buffer.from([0, 255]) }];
  const accepted = await publish(client, {
    topic: `${topic}/boiler`, payload: Buffer.from('21.5'), content_type: 'text/plain', correlation_id: '7', headers,
  });
  console.log(`published ${accepted.message_id}, subscriptions that get it: ${accepted.subscriber_count}`);
  const { message } = await subscription.next('message');
  console.log(`received  ${message.topic}: ${message.payload} ${message.content_type}`);
  assert.equal(accepted.subscriber_count, 1, 'one subscription is told');
  assert.equal(message.message_id, accepted.message_id, 'what was published arrives');
  const said = [String(message.payload), message.content_type, message.correlation_id];
  assert.deepEqual(said, ['21.5', 'text/plain', '7'], 'a message says what was published');
  assert.deepEqual(message.headers, headers, 'headers arrive in their order');
  await subscription.end();
}

async function retained(client, topic) {
  await publish(client, { topic, payload: Buffer.from('on'), retain: true });
  const asked = { topics: [topic], receive_retained: true };
  const subscription = await Subscription.begin(client, client.Subscribe(asked, { deadline: deadline() }));
  const { retained_message: value } = await subscription.next('retained_message');
  console.log(`retained  ${value.topic}: ${value.payload}`);
  assert.equal(String(value.payload), 'on', 'who subscribes later gets the retained value');
  await publish(client, { topic, payload: Buffer.alloc(0), retain: true });
  await subscription.end();
}

/** The stream is cut while messages go on; who tells its positions gets each message exactly once. */
async function comeBack(client, topic) {
  const COUNT = 1500;
  const topics = ['a', 'b', 'c'].map((name) => `${topic}/${name}`);
  const requests = (from, to) => Array.from({ length: to - from }, (_, at) => {
    return { topic: topics[(from + at) % topics.length], payload: Buffer.from(String(from + at)) };
  });
  const received = [];
  let subscription = await Subscription.to(client, `${topic}/+`);
  let replayed = 0;
  const receive = async (count) => {
    while (received.length < count) {
      const event = await subscription.next('message', 'replay_message', 'replay_complete');
      if (event.replay_complete) replayed += event.replay_complete.replayed_count;
      else received.push(event.message ?? event.replay_message);
    }
  };

  const answers = await publishAll(client, requests(0, 500));
  await receive(400); // the other 100 are under way when the stream is cut
  const meanwhile = publishAll(client, requests(500, 1000));
  subscription.breakOff();
  answers.push(...(await meanwhile));
  const { id, had } = subscription;
  subscription = await Subscription.resume(client, { subscription_id: id, last_sequence_per_topic: had });
  assert(!subscription.info.gap_detected, `nothing is lost: ${JSON.stringify(subscription.info)}`);
  answers.push(...(await publishAll(client, requests(1000, COUNT))));
  await receive(COUNT);
  await subscription.end();

  assert(answers.every((answer) => answer.success), 'all messages are accepted');
  for (const name of topics) {
    const sent = requests(0, COUNT).filter((request) => request.topic === name);
    const arrived = received.filter((message) => message.topic === name);
    assert.deepEqual(arrived.map((message) => String(message.payload)), sent.map((request) => String(request.payload)),
      'the messages of a topic arrive in their order, each once');
  }
  const names = (messages) => messages.map((message) => message.message_id).sort();
  assert.deepEqual(names(received), names(answers), 'the answers name the messages');
  console.log(`came back: ${received.length} messages arrived once each, ${replayed} of them by replay`);
}

async function refusals(client, topic) {
  const fails = (code, call) => assert.rejects(call, (error) => error.code === code && error.details !== '');
  await fails(grpc.status.INVALID_ARGUMENT, () => publish(client, { topic: `${topic}/#`, payload: Buffer.from('x') }));
  await fails(grpc.status.INVALID_ARGUMENT, () => Subscription.to(client));
  const unknown = randomUUID().replaceAll('-', '');
  await fails(grpc.status.NOT_FOUND, () => Subscription.resume(client, { subscription_id: unknown }));
  const ended = await ask(client, 'Unsubscribe', { subscription_id: unknown });
  assert(!ended.success && ended.error_message, 'an unknown subscription cannot be ended');
  console.log(`refused   ${ended.error_message}`);
}

async function main(address) {
  const client = new SidecarService(address, grpc.credentials.createInsecure());
  const topic = `node/${randomUUID().slice(0, 8)}`; // of its own for each run
  try {
    for (const show of [live, retained, comeBack, refusals]) await show(client, `${topic}/${show.name}`);
    console.log('all is as it must be');
  } finally {
    client.close();
  }
}

main(process.argv[2] ?? '127.0.0.1:5672').catch((error) => {
  console.error(`client.js: ${error instanceof assert.AssertionError ? 'must be: ' : ''}${error.message}`);
  process.exitCode = 1;
});
