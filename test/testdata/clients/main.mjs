// What an app in JavaScript does with the stores, through version 3 of AWS' SDK and nothing but what its
// environment says. Prints a line per part; the first thing that is not as AWS documents it ends the program.
import assert from "node:assert/strict";
import { DynamoDBClient, ListTablesCommand, TransactionCanceledException, waitUntilTableExists, CreateTableCommand, DeleteTableCommand } from "@aws-sdk/client-dynamodb";
import { DynamoDBDocumentClient, GetCommand, PutCommand, UpdateCommand, DeleteCommand, BatchWriteCommand, BatchGetCommand, TransactWriteCommand, ExecuteStatementCommand, paginateQuery, paginateScan } from "@aws-sdk/lib-dynamodb";
import { DynamoDBStreamsClient, ListStreamsCommand, DescribeStreamCommand, GetShardIteratorCommand, GetRecordsCommand } from "@aws-sdk/client-dynamodb-streams";
import { SQSClient, SendMessageCommand, SendMessageBatchCommand, ReceiveMessageCommand, DeleteMessageCommand, DeleteMessageBatchCommand, GetQueueAttributesCommand, GetQueueUrlCommand, CreateQueueCommand, DeleteQueueCommand, TagQueueCommand, ListQueueTagsCommand, SetQueueAttributesCommand, ChangeMessageVisibilityCommand, StartMessageMoveTaskCommand, ListMessageMoveTasksCommand, paginateListQueues, QueueDoesNotExist, QueueNameExists } from "@aws-sdk/client-sqs";
import { EventBridgeClient, PutRuleCommand, PutTargetsCommand, PutEventsCommand, ListRulesCommand, ListTargetsByRuleCommand, RemoveTargetsCommand, DeleteRuleCommand, TestEventPatternCommand, CreateConnectionCommand, DescribeConnectionCommand, DeleteConnectionCommand, InvalidEventPatternException } from "@aws-sdk/client-eventbridge";
import { SchedulerClient, CreateScheduleCommand, ListSchedulesCommand, GetScheduleCommand, UpdateScheduleCommand, DeleteScheduleCommand, CreateScheduleGroupCommand, DeleteScheduleGroupCommand, ConflictException } from "@aws-sdk/client-scheduler";
import { S3Client, PutObjectCommand, GetObjectCommand, HeadObjectCommand, CreateMultipartUploadCommand, UploadPartCommand, CompleteMultipartUploadCommand, DeleteObjectsCommand, CopyObjectCommand, AbortMultipartUploadCommand, ListPartsCommand, UploadPartCopyCommand, GetObjectAttributesCommand, PutObjectTaggingCommand, GetObjectTaggingCommand, paginateListObjectsV2, NoSuchKey } from "@aws-sdk/client-s3";
import { getSignedUrl } from "@aws-sdk/s3-request-presigner";
import { LambdaClient, InvokeCommand } from "@aws-sdk/client-lambda";

const raw = new DynamoDBClient({});
const db = DynamoDBDocumentClient.from(raw);
const sqs = new SQSClient({});
const TableName = process.env.SESSIONS_TABLE;
const QueueUrl = process.env.JOBS_QUEUE_URL;

async function tables() {
  assert((await raw.send(new ListTablesCommand({}))).TableNames.includes(TableName));
  const item = { user: "jo", at: 1, list: [1, "two", null, { three: 3 }], set: new Set(["a", "b"]), bytes: new Uint8Array([0, 255]), big: 1.5, yes: true };
  await db.send(new PutCommand({ TableName, Item: item }));
  assert.deepEqual((await db.send(new GetCommand({ TableName, Key: { user: "jo", at: 1 } }))).Item, item);
  const { Attributes } = await db.send(new UpdateCommand({
    TableName, Key: { user: "jo", at: 1 }, UpdateExpression: "SET #l = list_append(#l, :l), big = big + :h DELETE #s :a",
    ExpressionAttributeNames: { "#l": "list", "#s": "set" }, ExpressionAttributeValues: { ":l": [4], ":h": 0.5, ":a": new Set(["a"]) }, ReturnValues: "UPDATED_NEW",
  }));
  assert.deepEqual(Attributes, { list: [...item.list, 4], big: 2, set: new Set(["b"]) });
  await assert.rejects(db.send(new DeleteCommand({ TableName, Key: { user: "jo", at: 1 }, ConditionExpression: "big > :n", ExpressionAttributeValues: { ":n": 5 } })), { name: "ConditionalCheckFailedException" });
  const items = Array.from({ length: 25 }, (_, n) => ({ user: "kim", at: n, pad: "x".repeat(100) }));
  await db.send(new BatchWriteCommand({ RequestItems: { [TableName]: items.map((Item) => ({ PutRequest: { Item } })) } }));
  const got = await db.send(new BatchGetCommand({ RequestItems: { [TableName]: { Keys: items.slice(0, 10).map(({ user, at }) => ({ user, at })) } } }));
  assert.equal(got.Responses[TableName].length, 10);
  const ats = [];
  for await (const page of paginateQuery({ client: db, pageSize: 10 }, { TableName, KeyConditionExpression: "#u = :u", ExpressionAttributeNames: { "#u": "user" }, ExpressionAttributeValues: { ":u": "kim" } })) ats.push(...page.Items.map((i) => i.at));
  assert.deepEqual(ats, items.map((i) => i.at));
  let n = 0;
  for await (const page of paginateScan({ client: db, pageSize: 7 }, { TableName, FilterExpression: "#u = :u", ExpressionAttributeNames: { "#u": "user" }, ExpressionAttributeValues: { ":u": "kim" } })) n += page.Count;
  assert.equal(n, 25);
  const token = "once-and-no-more";
  for (let i = 0; i < 2; i++) await db.send(new TransactWriteCommand({ ClientRequestToken: token, TransactItems: [{ Update: { TableName, Key: { user: "kim", at: 0 }, UpdateExpression: "ADD visits :o", ExpressionAttributeValues: { ":o": 1 } } }] }));
  assert.equal((await db.send(new GetCommand({ TableName, Key: { user: "kim", at: 0 } }))).Item.visits, 1);
  await assert.rejects(db.send(new TransactWriteCommand({ TransactItems: [
    { Put: { TableName, Item: { user: "kim", at: 100 } } },
    { ConditionCheck: { TableName, Key: { user: "kim", at: 99 }, ConditionExpression: "attribute_exists(visits)" } },
  ] })), (e) => e instanceof TransactionCanceledException && e.CancellationReasons[1].Code === "ConditionalCheckFailed");
  const found = await db.send(new ExecuteStatementCommand({ Statement: `SELECT "at" FROM "${TableName}" WHERE "user" = ? AND "at" < ?`, Parameters: ["kim", 3] }));
  assert.deepEqual(found.Items, [{ at: 0 }, { at: 1 }, { at: 2 }]);
  await raw.send(new CreateTableCommand({ TableName: "made-by-js", BillingMode: "PAY_PER_REQUEST", AttributeDefinitions: [{ AttributeName: "id", AttributeType: "S" }], KeySchema: [{ AttributeName: "id", KeyType: "HASH" }] }));
  await waitUntilTableExists({ client: raw, maxWaitTime: 20, minDelay: 1 }, { TableName: "made-by-js" });
  await raw.send(new DeleteTableCommand({ TableName: "made-by-js" }));
}

async function streams() {
  const s = new DynamoDBStreamsClient({});
  const [{ StreamArn }] = (await s.send(new ListStreamsCommand({ TableName }))).Streams;
  const { StreamDescription } = await s.send(new DescribeStreamCommand({ StreamArn }));
  const names = [];
  for (const { ShardId } of StreamDescription.Shards) {
    let { ShardIterator } = await s.send(new GetShardIteratorCommand({ StreamArn, ShardId, ShardIteratorType: "TRIM_HORIZON" }));
    for (;;) {
      const page = await s.send(new GetRecordsCommand({ ShardIterator }));
      names.push(...page.Records.filter((r) => r.dynamodb.Keys.user.S === "jo").map((r) => r.eventName));
      if (!page.Records.length || !(ShardIterator = page.NextShardIterator)) break;
    }
  }
  assert.deepEqual(names, ["INSERT", "MODIFY"]);
}

async function queues() {
  await sqs.send(new SendMessageCommand({ QueueUrl, MessageBody: "grüße", MessageAttributes: { kind: { DataType: "String", StringValue: "x" } } }));
  const [m] = (await sqs.send(new ReceiveMessageCommand({ QueueUrl, MessageAttributeNames: ["All"], MessageSystemAttributeNames: ["All"], WaitTimeSeconds: 5 }))).Messages;
  assert.equal(m.Body, "grüße");
  assert.equal(m.MessageAttributes.kind.StringValue, "x");
  assert(Number(m.Attributes.SentTimestamp) > 0);
  await sqs.send(new DeleteMessageCommand({ QueueUrl, ReceiptHandle: m.ReceiptHandle }));
  const sent = await sqs.send(new SendMessageBatchCommand({ QueueUrl, Entries: [{ Id: "a", MessageBody: "1" }, { Id: "b", MessageBody: "2" }] }));
  assert.equal(sent.Successful.length, 2);
  const left = new Set(["1", "2"]);
  while (left.size) {
    const { Messages = [] } = await sqs.send(new ReceiveMessageCommand({ QueueUrl, MaxNumberOfMessages: 10, WaitTimeSeconds: 5 }));
    for (const x of Messages) left.delete(x.Body);
    if (Messages.length) await sqs.send(new DeleteMessageBatchCommand({ QueueUrl, Entries: Messages.map((x, i) => ({ Id: String(i), ReceiptHandle: x.ReceiptHandle })) }));
  }
  await assert.rejects(sqs.send(new GetQueueUrlCommand({ QueueName: "nothing" })), (e) => e instanceof QueueDoesNotExist);
  // Queues of the client's own: dead letters that are given back, and what is refused.
  const dead = (await sqs.send(new CreateQueueCommand({ QueueName: "js-dead" }))).QueueUrl;
  const SourceArn = (await sqs.send(new GetQueueAttributesCommand({ QueueUrl: dead, AttributeNames: ["QueueArn"] }))).Attributes.QueueArn;
  const own = (await sqs.send(new CreateQueueCommand({ QueueName: "js-own", Attributes: { RedrivePolicy: JSON.stringify({ deadLetterTargetArn: SourceArn, maxReceiveCount: 1 }) } }))).QueueUrl;
  await sqs.send(new TagQueueCommand({ QueueUrl: own, Tags: { team: "blue" } }));
  assert.deepEqual((await sqs.send(new ListQueueTagsCommand({ QueueUrl: own }))).Tags, { team: "blue" });
  await sqs.send(new SendMessageCommand({ QueueUrl: own, MessageBody: "poison" }));
  const [first] = (await sqs.send(new ReceiveMessageCommand({ QueueUrl: own }))).Messages;
  await sqs.send(new ChangeMessageVisibilityCommand({ QueueUrl: own, ReceiptHandle: first.ReceiptHandle, VisibilityTimeout: 0 }));
  assert.equal((await sqs.send(new ReceiveMessageCommand({ QueueUrl: own }))).Messages, undefined);
  await sqs.send(new StartMessageMoveTaskCommand({ SourceArn }));
  const [back] = (await sqs.send(new ReceiveMessageCommand({ QueueUrl: own, WaitTimeSeconds: 10 }))).Messages;
  assert.equal(back.Body, "poison");
  const [task] = (await sqs.send(new ListMessageMoveTasksCommand({ SourceArn }))).Results;
  assert.equal(task.ApproximateNumberOfMessagesToMove, 1);
  await sqs.send(new SetQueueAttributesCommand({ QueueUrl: own, Attributes: { DelaySeconds: "5" } }));
  await assert.rejects(sqs.send(new CreateQueueCommand({ QueueName: "js-own", Attributes: { DelaySeconds: "6" } })), (e) => e instanceof QueueNameExists);
  await assert.rejects(sqs.send(new DeleteMessageCommand({ QueueUrl: own, ReceiptHandle: "garbage" })), (e) => e.name === "ReceiptHandleIsInvalid" && e.$metadata.httpStatusCode === 404);
  const urls = [];
  for await (const page of paginateListQueues({ client: sqs, pageSize: 1 }, { QueueNamePrefix: "js-" })) urls.push(...page.QueueUrls);
  assert.deepEqual(urls, [dead, own]);
  for (const QueueUrl of urls) await sqs.send(new DeleteQueueCommand({ QueueUrl }));
}

async function events() {
  const e = new EventBridgeClient({});
  const EventBusName = process.env.NEWS_BUS;
  const Arn = (await sqs.send(new GetQueueAttributesCommand({ QueueUrl, AttributeNames: ["QueueArn"] }))).Attributes.QueueArn;
  await e.send(new PutRuleCommand({ Name: "js", EventBusName, EventPattern: JSON.stringify({ source: ["js"], "detail-type": [{ prefix: "order." }] }) }));
  assert.equal((await e.send(new PutTargetsCommand({ Rule: "js", EventBusName, Targets: [{ Id: "q", Arn, InputPath: "$.detail" }] }))).FailedEntryCount, 0);
  assert((await e.send(new ListRulesCommand({ EventBusName }))).Rules.some((r) => r.Name === "js"));
  const put = await e.send(new PutEventsCommand({ Entries: [{ EventBusName, Source: "js", DetailType: "order.paid", Detail: '{"id":7}' }, { EventBusName, Source: "js", DetailType: "other", Detail: "{}" }] }));
  assert.equal(put.FailedEntryCount, 0);
  const { Messages } = await sqs.send(new ReceiveMessageCommand({ QueueUrl, WaitTimeSeconds: 10 }));
  assert.deepEqual(JSON.parse(Messages[0].Body), { id: 7 });
  await sqs.send(new DeleteMessageCommand({ QueueUrl, ReceiptHandle: Messages[0].ReceiptHandle }));
  assert.equal((await e.send(new ListTargetsByRuleCommand({ Rule: "js", EventBusName }))).Targets[0].InputPath, "$.detail");
  await assert.rejects(e.send(new DeleteRuleCommand({ Name: "js", EventBusName })), { name: "ValidationException" });
  await e.send(new RemoveTargetsCommand({ Rule: "js", EventBusName, Ids: ["q"] }));
  await e.send(new DeleteRuleCommand({ Name: "js", EventBusName }));
  await assert.rejects(e.send(new PutRuleCommand({ Name: "bad", EventBusName, EventPattern: '{"a":1}' })), (x) => x instanceof InvalidEventPatternException);
  const Event = JSON.stringify({ id: "1", account: "1", source: "s", time: "2026-01-01T00:00:00Z", region: "r", resources: [], "detail-type": "d", detail: { ip: "10.0.0.9" } });
  for (const [cidr, is] of [["10.0.0.0/24", true], ["10.0.1.0/24", false]]) assert.equal((await e.send(new TestEventPatternCommand({ EventPattern: JSON.stringify({ detail: { ip: [{ cidr }] } }), Event }))).Result, is);
  await e.send(new CreateConnectionCommand({ Name: "js", AuthorizationType: "BASIC", AuthParameters: { BasicAuthParameters: { Username: "jo", Password: "secret" } } }));
  assert.deepEqual((await e.send(new DescribeConnectionCommand({ Name: "js" }))).AuthParameters, { BasicAuthParameters: { Username: "jo" } });
  await e.send(new DeleteConnectionCommand({ Name: "js" }));
  const s = new SchedulerClient({});
  await s.send(new CreateScheduleCommand({ Name: "js", ScheduleExpression: "rate(1 hour)", FlexibleTimeWindow: { Mode: "FLEXIBLE", MaximumWindowInMinutes: 5 }, Target: { Arn, RoleArn: "arn:aws:iam::123456789012:role/any" } }));
  assert((await s.send(new ListSchedulesCommand({}))).Schedules.some((x) => x.Name === "js"));
  await s.send(new UpdateScheduleCommand({ Name: "js", ScheduleExpression: "cron(0 3 * * ? *)", State: "DISABLED", FlexibleTimeWindow: { Mode: "OFF" }, Target: { Arn, RoleArn: "arn:aws:iam::123456789012:role/any" } }));
  const got = await s.send(new GetScheduleCommand({ Name: "js" }));
  assert.deepEqual([got.ScheduleExpression, got.State, got.FlexibleTimeWindow, got.Target.RetryPolicy.MaximumRetryAttempts], ["cron(0 3 * * ? *)", "DISABLED", { Mode: "OFF" }, 185]);
  await s.send(new DeleteScheduleCommand({ Name: "js" }));
  await s.send(new CreateScheduleGroupCommand({ Name: "js" }));
  await assert.rejects(s.send(new CreateScheduleGroupCommand({ Name: "js" })), (x) => x instanceof ConflictException);
  await s.send(new DeleteScheduleGroupCommand({ Name: "js" }));
}

async function functions() {
  const { Payload, StatusCode } = await new LambdaClient({}).send(new InvokeCommand({ FunctionName: "hi", Payload: JSON.stringify({ name: "jo" }) }));
  assert.equal(StatusCode, 200);
  assert.deepEqual(JSON.parse(Payload.transformToString()), { hello: "jo" });
}

async function files() {
  const s3 = new S3Client({});
  const Bucket = process.env.UPLOADS_BUCKET;
  await s3.send(new PutObjectCommand({ Bucket, Key: "js/grüße.txt", Body: "hello", Metadata: { by: "jo" } }));
  const got = await s3.send(new GetObjectCommand({ Bucket, Key: "js/grüße.txt" }));
  assert.equal(await got.Body.transformToString(), "hello");
  assert.deepEqual(got.Metadata, { by: "jo" });
  const { UploadId } = await s3.send(new CreateMultipartUploadCommand({ Bucket, Key: "js/parts" }));
  const parts = [];
  for (const [i, n] of [5 << 20, 10].entries()) {
    const { ETag } = await s3.send(new UploadPartCommand({ Bucket, Key: "js/parts", UploadId, PartNumber: i + 1, Body: new Uint8Array(n).fill(i) }));
    parts.push({ ETag, PartNumber: i + 1 });
  }
  await s3.send(new CompleteMultipartUploadCommand({ Bucket, Key: "js/parts", UploadId, MultipartUpload: { Parts: parts } }));
  assert.equal((await s3.send(new HeadObjectCommand({ Bucket, Key: "js/parts" }))).ContentLength, (5 << 20) + 10);
  assert.equal((await s3.send(new GetObjectAttributesCommand({ Bucket, Key: "js/parts", ObjectAttributes: ["ObjectSize"] }))).ObjectSize, (5 << 20) + 10);
  const other = (await s3.send(new CreateMultipartUploadCommand({ Bucket, Key: "js/left" }))).UploadId;
  await s3.send(new UploadPartCopyCommand({ Bucket, Key: "js/left", UploadId: other, PartNumber: 1, CopySource: `${Bucket}/js/parts`, CopySourceRange: "bytes=0-99" }));
  assert.equal((await s3.send(new ListPartsCommand({ Bucket, Key: "js/left", UploadId: other }))).Parts[0].Size, 100);
  await s3.send(new AbortMultipartUploadCommand({ Bucket, Key: "js/left", UploadId: other }));
  await s3.send(new CopyObjectCommand({ Bucket, Key: "js/copy", CopySource: `${Bucket}/${encodeURIComponent("js/grüße.txt")}` }));
  await s3.send(new PutObjectTaggingCommand({ Bucket, Key: "js/copy", Tagging: { TagSet: [{ Key: "k", Value: "v" }] } }));
  assert.deepEqual((await s3.send(new GetObjectTaggingCommand({ Bucket, Key: "js/copy" }))).TagSet, [{ Key: "k", Value: "v" }]);
  await assert.rejects(s3.send(new PutObjectCommand({ Bucket, Key: "js/copy", Body: "x", IfNoneMatch: "*" })), { name: "PreconditionFailed" });
  await s3.send(new DeleteObjectsCommand({ Bucket, Delete: { Objects: [{ Key: "js/copy" }] } }));
  const url = await getSignedUrl(s3, new PutObjectCommand({ Bucket, Key: "js/signed" }), { expiresIn: 60 });
  assert.equal((await fetch(url, { method: "PUT", body: "by a browser" })).status, 200);
  assert.equal(await (await fetch(await getSignedUrl(s3, new GetObjectCommand({ Bucket, Key: "js/signed" })))).text(), "by a browser");
  assert.equal((await fetch(url.replace("X-Amz-Expires=60", "X-Amz-Expires=61"), { method: "PUT", body: "x" })).status, 403);
  const keys = [];
  for await (const page of paginateListObjectsV2({ client: s3, pageSize: 2 }, { Bucket, Prefix: "js/" })) keys.push(...page.Contents.map((o) => o.Key));
  assert.deepEqual(keys, ["js/grüße.txt", "js/parts", "js/signed"]);
  await s3.send(new DeleteObjectsCommand({ Bucket, Delete: { Objects: keys.map((Key) => ({ Key })) } }));
  await assert.rejects(s3.send(new GetObjectCommand({ Bucket, Key: "js/parts" })), (e) => e instanceof NoSuchKey);
}

for (const part of [tables, streams, queues, events, functions, files]) {
  await part();
  console.log("ok", part.name);
}
