"""What an app in Python does with the stores, through boto3 and nothing but what its environment says.

Prints a line per part; the first thing that is not as AWS documents it ends the program.
"""

import glob
import gzip
import json
import os
import time
import urllib.request
from decimal import Decimal

import boto3
import botocore
from boto3.dynamodb.conditions import Attr, Key
from boto3.dynamodb.types import Binary
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError


def client(service, **config):
    # A boto3 from before 2023 does not read AWS_ENDPOINT_URL_*.
    variable = "AWS_ENDPOINT_URL_" + {"dynamodbstreams": "DYNAMODB_STREAMS", "events": "EVENTBRIDGE"}.get(service, service.upper())
    return boto3.client(service, endpoint_url=os.environ[variable], region_name=os.environ["AWS_REGION"], config=Config(**config))


def code(of, call, **parameters):
    try:
        call(**parameters)
    except ClientError as e:
        assert e.response["Error"]["Code"] == of, e
        return e.response
    raise AssertionError(f"no {of}")


def tables():
    db = boto3.resource("dynamodb", endpoint_url=os.environ["AWS_ENDPOINT_URL_DYNAMODB"], region_name=os.environ["AWS_REGION"])
    t = db.Table(os.environ["SESSIONS_TABLE"])
    t.put_item(Item={"user": "ann", "at": 1, "price": Decimal("12.50"), "tags": {"a", "b"}, "raw": Binary(b"\x00\xff"), "deep": {"list": [1, None, True]}})
    got = t.get_item(Key={"user": "ann", "at": 1}, ConsistentRead=True)["Item"]
    assert got["price"] == Decimal("12.50") and got["tags"] == {"a", "b"} and got["raw"] == Binary(b"\x00\xff") and got["deep"] == {"list": [1, None, True]}, got
    after = t.update_item(Key={"user": "ann", "at": 1}, UpdateExpression="SET deep.#l[0] = :v ADD visits :one REMOVE #r", ExpressionAttributeNames={"#l": "list", "#r": "raw"},
                          ExpressionAttributeValues={":v": "x", ":one": 1}, ReturnValues="ALL_NEW")["Attributes"]
    assert after["deep"] == {"list": ["x", None, True]} and after["visits"] == 1 and "raw" not in after, after
    code("ConditionalCheckFailedException", t.put_item, Item={"user": "ann", "at": 1}, ConditionExpression=Attr("user").not_exists())
    with t.batch_writer() as w:
        for n in range(100):
            w.put_item(Item={"user": "bob", "at": n, "even": n % 2 == 0})
    got = t.query(KeyConditionExpression=Key("user").eq("bob") & Key("at").between(10, 29), FilterExpression=Attr("even").eq(True), ScanIndexForward=False)
    assert [i["at"] for i in got["Items"]] == list(range(28, 9, -2)) and got["ScannedCount"] == 20, got
    pages = list(client("dynamodb").get_paginator("query").paginate(TableName=t.name, KeyConditionExpression="#u = :u", ExpressionAttributeNames={"#u": "user"},
                                                                    ExpressionAttributeValues={":u": {"S": "bob"}}, PaginationConfig={"PageSize": 30}))
    assert [p["Count"] for p in pages] == [30, 30, 30, 10], pages
    assert sum(len(db.meta.client.scan(TableName=t.name, Segment=n, TotalSegments=4)["Items"]) for n in range(4)) == 101
    tx = db.meta.client
    tx.transact_write_items(TransactItems=[{"Update": {"TableName": t.name, "Key": {"user": "bob", "at": 0}, "UpdateExpression": "SET n = :n", "ExpressionAttributeValues": {":n": 1}}},
                                           {"Delete": {"TableName": t.name, "Key": {"user": "bob", "at": 1}}}])
    why = code("TransactionCanceledException", tx.transact_write_items, TransactItems=[
        {"Put": {"TableName": t.name, "Item": {"user": "bob", "at": 500}}},
        {"ConditionCheck": {"TableName": t.name, "Key": {"user": "bob", "at": 1}, "ConditionExpression": "attribute_exists(#u)", "ExpressionAttributeNames": {"#u": "user"}}}])
    assert [r["Code"] for r in why["CancellationReasons"]] == ["None", "ConditionalCheckFailed"], why
    got = tx.execute_statement(Statement=f'SELECT * FROM "{t.name}" WHERE "user" = ? AND "at" = ?', Parameters=["bob", 0])["Items"]
    assert got == [{"user": "bob", "at": 0, "even": True, "n": 1}], got
    why = code("ValidationException", t.put_item, Item={"user": 7, "at": 1})
    assert "Type mismatch for key user" in why["Error"]["Message"], why


def streams():
    s = client("dynamodbstreams")
    arn = s.list_streams(TableName=os.environ["SESSIONS_TABLE"])["Streams"][0]["StreamArn"]
    seen = []
    for shard in s.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]:
        at = s.get_shard_iterator(StreamArn=arn, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
        while at:
            page = s.get_records(ShardIterator=at)
            seen += page["Records"]
            if not page["Records"]:
                break
            at = page.get("NextShardIterator")
    kinds = [r["eventName"] for r in seen if r["dynamodb"]["Keys"]["user"]["S"] == "ann"]
    assert kinds == ["INSERT", "MODIFY"], kinds
    assert any(r["eventName"] == "REMOVE" and "OldImage" in r["dynamodb"] for r in seen)


def examples():
    """The examples that AWS ships with botocore, in an order in which each finds what it needs."""
    db = client("dynamodb")
    of = {}
    for path in glob.glob(os.path.join(os.path.dirname(botocore.__file__), "data/dynamodb/2012-08-10/examples-1.json*")):
        with (gzip.open if path.endswith("gz") else open)(path) as f:
            of = json.load(f)["examples"]
    assert of, "no examples in this botocore"
    order = ["CreateTable", "DescribeTable", "ListTables", "PutItem", "BatchWriteItem", "GetItem", "BatchGetItem", "Query", "Scan", "UpdateItem", "UpdateTable", "DescribeLimits", "DeleteItem", "DeleteTable"]
    assert sorted(order) == sorted(of), of.keys()
    for name in {x["input"]["TableName"] for all in of.values() for x in all if "TableName" in x["input"]} - {of["CreateTable"][0]["input"]["TableName"]}:
        db.create_table(**{**of["CreateTable"][0]["input"], "TableName": name})  # which no example makes
    for name in order:
        for x in of[name]:
            method = "".join("_" + c.lower() if c.isupper() else c for c in name)[1:]
            got = getattr(db, method)(**x.get("input", {}))
            missing = set(x.get("output", {})) - set(got)
            if "ReturnConsumedCapacity" not in x["input"]:
                missing.discard("ConsumedCapacity")  # shown there, but sent only where it is asked for
            assert not missing, (name, missing, got)
            if name == "GetItem":  # the others' answers are of items that no example puts
                assert got["Item"] == x["output"]["Item"], got


def queues():
    q = client("sqs")
    url = os.environ["JOBS_QUEUE_URL"]
    sent = q.send_message(QueueUrl=url, MessageBody="hello", MessageAttributes={"n": {"DataType": "Number", "StringValue": "7"}, "b": {"DataType": "Binary", "BinaryValue": b"\x00\x01"}})
    got = q.receive_message(QueueUrl=url, MessageAttributeNames=["All"], AttributeNames=["All"], WaitTimeSeconds=5)["Messages"][0]
    assert got["Body"] == "hello" and got["MessageId"] == sent["MessageId"] and got["MessageAttributes"]["b"]["BinaryValue"] == b"\x00\x01", got
    assert got["Attributes"]["ApproximateReceiveCount"] == "1", got
    q.delete_message(QueueUrl=url, ReceiptHandle=got["ReceiptHandle"])
    q.send_message_batch(QueueUrl=url, Entries=[{"Id": str(n), "MessageBody": f"m{n}"} for n in range(10)])
    bodies = set()
    while len(bodies) < 10:
        for m in q.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=5)["Messages"]:
            bodies.add(m["Body"])
            q.change_message_visibility(QueueUrl=url, ReceiptHandle=m["ReceiptHandle"], VisibilityTimeout=60)
            q.delete_message(QueueUrl=url, ReceiptHandle=m["ReceiptHandle"])
    fifo = os.environ["ORDERS_QUEUE_URL"]
    for n in (0, 1, 1, 2):
        q.send_message(QueueUrl=fifo, MessageBody=f"o{n}", MessageGroupId="g", MessageDeduplicationId=str(n))
    got = [m["Body"] for m in q.receive_message(QueueUrl=fifo, MaxNumberOfMessages=10)["Messages"]]
    assert got == ["o0", "o1", "o2"], got
    code("AWS.SimpleQueueService.NonExistentQueue", q.get_queue_url, QueueName="nothing")
    # A queue of the client's own, with its dead letters, attributes, tags and permissions.
    dead = q.create_queue(QueueName="py-dead")["QueueUrl"]
    arn = q.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    own = q.create_queue(QueueName="py-own", Attributes={"VisibilityTimeout": "0", "RedrivePolicy": json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 1})}, tags={"team": "blue"})["QueueUrl"]
    assert q.list_dead_letter_source_queues(QueueUrl=dead)["queueUrls"] == [own]
    assert "Messages" not in q.receive_message(QueueUrl=own)  # an empty queue, which older clients read from XML
    q.tag_queue(QueueUrl=own, Tags={"stage": "test"})
    q.untag_queue(QueueUrl=own, TagKeys=["team"])
    assert q.list_queue_tags(QueueUrl=own)["Tags"] == {"stage": "test"}
    q.add_permission(QueueUrl=own, Label="l", AWSAccountIds=["111122223333"], Actions=["SendMessage"])
    policy = json.loads(q.get_queue_attributes(QueueUrl=own, AttributeNames=["Policy"])["Attributes"]["Policy"])
    assert [x["Sid"] for x in policy["Statement"]] == ["l"] and policy["Statement"][0]["Action"] == "SQS:SendMessage", policy
    q.remove_permission(QueueUrl=own, Label="l")
    q.send_message(QueueUrl=own, MessageBody="poison", DelaySeconds=0)
    assert [m["Body"] for m in q.receive_message(QueueUrl=own)["Messages"]] == ["poison"]
    assert "Messages" not in q.receive_message(QueueUrl=own)
    assert [m["Body"] for m in q.receive_message(QueueUrl=dead, WaitTimeSeconds=5)["Messages"]] == ["poison"]
    q.set_queue_attributes(QueueUrl=own, Attributes={"DelaySeconds": "5"})
    code("InvalidAttributeValue", q.set_queue_attributes, QueueUrl=own, Attributes={"DelaySeconds": "901"})
    code("QueueAlreadyExists", q.create_queue, QueueName="py-own", Attributes={"DelaySeconds": "6"})
    code("ReceiptHandleIsInvalid", q.delete_message, QueueUrl=own, ReceiptHandle="garbage")
    failed = q.delete_message_batch(QueueUrl=own, Entries=[{"Id": "a", "ReceiptHandle": "garbage"}])["Failed"]
    assert failed[0]["Id"] == "a" and failed[0]["Code"] == "ReceiptHandleIsInvalid" and failed[0]["SenderFault"], failed
    q.purge_queue(QueueUrl=dead)
    pages = [u for p in q.get_paginator("list_queues").paginate(QueueNamePrefix="py-", PaginationConfig={"PageSize": 1}) for u in p["QueueUrls"]]
    assert pages == [dead, own], pages
    q.delete_queue(QueueUrl=own)
    q.delete_queue(QueueUrl=dead)
    assert "QueueUrls" not in q.list_queues(QueueNamePrefix="py-") or q.list_queues(QueueNamePrefix="py-")["QueueUrls"] == []
    assert q.get_queue_attributes(QueueUrl=fifo, AttributeNames=["All"])["Attributes"]["FifoQueue"] == "true"


def events():
    e, q = client("events"), client("sqs")
    url = os.environ["JOBS_QUEUE_URL"]
    arn = q.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    bus = os.environ["NEWS_BUS"]
    e.put_rule(Name="paid", EventBusName=bus, EventPattern=json.dumps({"source": ["shop"], "detail": {"total": [{"numeric": [">", 100]}]}}))
    e.put_targets(Rule="paid", EventBusName=bus, Targets=[{"Id": "q", "Arn": arn, "InputTransformer": {"InputPathsMap": {"id": "$.detail.id"}, "InputTemplate": '{"order": "<id>"}'}}])
    got = e.put_events(Entries=[{"EventBusName": bus, "Source": "shop", "DetailType": "order.paid", "Detail": json.dumps({"id": n, "total": n})} for n in ("99", 99, 101)])
    assert got["FailedEntryCount"] == 0, got
    m = q.receive_message(QueueUrl=url, WaitTimeSeconds=10)["Messages"]
    assert [x["Body"] for x in m] == ['{"order": "101"}'] or json.loads(m[0]["Body"]) == {"order": "101"}, m
    q.delete_message(QueueUrl=url, ReceiptHandle=m[0]["ReceiptHandle"])
    assert e.test_event_pattern(EventPattern='{"a": [{"prefix": "x"}]}', Event=json.dumps({"id": "1", "account": "1", "source": "s", "time": "2026-01-01T00:00:00Z", "region": "r", "resources": [], "detail-type": "d", "a": "xy"}))["Result"]
    # A bus of the client's own: permissions, an archive that is played again, an API destination.
    e.create_event_bus(Name="py-bus")
    e.put_permission(EventBusName="py-bus", StatementId="one", Principal="111122223333", Action="events:PutEvents")
    e.put_permission(EventBusName="py-bus", StatementId="two", Principal="*", Action="events:PutEvents")
    e.remove_permission(EventBusName="py-bus", StatementId="one")
    policy = json.loads(e.describe_event_bus(Name="py-bus")["Policy"])
    assert [x["Sid"] for x in policy["Statement"]] == ["two"], policy
    code("ResourceNotFoundException", e.remove_permission, EventBusName="py-bus", StatementId="one")
    own = e.describe_event_bus(Name="py-bus")["Arn"]
    archive = e.create_archive(ArchiveName="py-archive", EventSourceArn=own, RetentionDays=1)["ArchiveArn"]
    e.put_events(Entries=[{"EventBusName": "py-bus", "Source": "py", "DetailType": "kept", "Detail": "{}"}])
    e.put_rule(Name="again", EventBusName="py-bus", EventPattern=json.dumps({"replay-name": [{"exists": True}]}))
    e.put_targets(Rule="again", EventBusName="py-bus", Targets=[{"Id": "q", "Arn": arn, "InputPath": "$.replay-name"}])
    now = time.time()
    e.start_replay(ReplayName="py-replay", EventSourceArn=archive, EventStartTime=now - 600, EventEndTime=now + 600, Destination={"Arn": own})
    m = q.receive_message(QueueUrl=url, WaitTimeSeconds=20)["Messages"]
    assert [x["Body"] for x in m] == ['"py-replay"'], m
    q.delete_message(QueueUrl=url, ReceiptHandle=m[0]["ReceiptHandle"])
    assert e.list_rule_names_by_target(TargetArn=arn, EventBusName="py-bus")["RuleNames"] == ["again"]
    code("ValidationException", e.delete_rule, Name="again", EventBusName="py-bus")
    e.remove_targets(Rule="again", EventBusName="py-bus", Ids=["q"])
    e.delete_rule(Name="again", EventBusName="py-bus")
    connection = e.create_connection(Name="py-connection", AuthorizationType="API_KEY", AuthParameters={"ApiKeyAuthParameters": {"ApiKeyName": "X-Key", "ApiKeyValue": "secret"}})["ConnectionArn"]
    assert e.describe_connection(Name="py-connection")["AuthParameters"] == {"ApiKeyAuthParameters": {"ApiKeyName": "X-Key"}}
    e.create_api_destination(Name="py-destination", ConnectionArn=connection, InvocationEndpoint="https://example.com/hook", HttpMethod="POST")
    assert e.describe_api_destination(Name="py-destination")["InvocationRateLimitPerSecond"] == 300
    e.delete_api_destination(Name="py-destination")
    e.delete_connection(Name="py-connection")
    code("ResourceNotFoundException", e.describe_connection, Name="py-connection")
    code("InvalidEventPatternException", e.put_rule, Name="bad", EventBusName="py-bus", EventPattern='{"a": 1}')
    code("UnknownOperationException", e.list_endpoints)
    e.delete_archive(ArchiveName="py-archive")
    e.delete_event_bus(Name="py-bus")
    s = client("scheduler")
    s.create_schedule(Name="once", ScheduleExpression="at(2020-01-01T00:00:00)", FlexibleTimeWindow={"Mode": "OFF"}, Target={"Arn": arn, "RoleArn": "arn:aws:iam::123456789012:role/any", "Input": "never"})
    s.create_schedule(Name="soon", ScheduleExpression="at(" + time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() + 2)) + ")", FlexibleTimeWindow={"Mode": "OFF"},
                      Target={"Arn": arn, "RoleArn": "arn:aws:iam::123456789012:role/any", "Input": "now"})
    m = q.receive_message(QueueUrl=url, WaitTimeSeconds=20)["Messages"]
    assert [x["Body"] for x in m] == ["now"], m
    q.delete_message(QueueUrl=url, ReceiptHandle=m[0]["ReceiptHandle"])
    assert s.get_schedule(Name="soon")["ScheduleExpression"].startswith("at(")
    s.create_schedule_group(Name="py-group")
    s.create_schedule(Name="nightly", GroupName="py-group", ScheduleExpression="cron(0 3 * * ? *)", ScheduleExpressionTimezone="Europe/Rome", FlexibleTimeWindow={"Mode": "FLEXIBLE", "MaximumWindowInMinutes": 10},
                      Target={"Arn": arn, "RoleArn": "arn:aws:iam::123456789012:role/any"})
    s.update_schedule(Name="nightly", GroupName="py-group", ScheduleExpression="rate(1 day)", State="DISABLED", FlexibleTimeWindow={"Mode": "OFF"}, Target={"Arn": arn, "RoleArn": "arn:aws:iam::123456789012:role/any"})
    got = s.get_schedule(Name="nightly", GroupName="py-group")
    assert (got["ScheduleExpression"], got["State"], got["Target"]["RetryPolicy"]["MaximumRetryAttempts"]) == ("rate(1 day)", "DISABLED", 185), got
    assert [x["Name"] for x in s.list_schedules(GroupName="py-group")["Schedules"]] == ["nightly"]
    code("ValidationException", s.create_schedule, Name="bad", ScheduleExpression="rate(10 seconds)", FlexibleTimeWindow={"Mode": "OFF"}, Target={"Arn": arn, "RoleArn": "arn:aws:iam::123456789012:role/any"})
    code("ConflictException", s.create_schedule_group, Name="py-group")
    s.delete_schedule_group(Name="py-group")
    code("ResourceNotFoundException", s.get_schedule, Name="nightly", GroupName="py-group")


def functions():
    f = client("lambda")
    got = f.invoke(FunctionName="hi", Payload=json.dumps({"name": "ann"}))
    assert got["StatusCode"] == 200 and json.loads(got["Payload"].read()) == {"hello": "ann"}, got
    code("ResourceNotFoundException", f.invoke, FunctionName="nothing")


def files():
    s = client("s3", signature_version="s3v4")  # an older boto3 signs URLs as S3 did before 2014, else
    bucket = os.environ["UPLOADS_BUCKET"]
    s.put_object(Bucket=bucket, Key="a/one.txt", Body=b"hello", ContentType="text/plain", Metadata={"by": "ann"}, Tagging="kind=note")
    got = s.get_object(Bucket=bucket, Key="a/one.txt")
    assert got["Body"].read() == b"hello" and got["ContentType"] == "text/plain" and got["Metadata"] == {"by": "ann"}, got
    assert s.get_object(Bucket=bucket, Key="a/one.txt", Range="bytes=1-3")["Body"].read() == b"ell"
    assert s.get_object_tagging(Bucket=bucket, Key="a/one.txt")["TagSet"] == [{"Key": "kind", "Value": "note"}]
    s.copy_object(Bucket=bucket, Key="b/two words.txt", CopySource={"Bucket": bucket, "Key": "a/one.txt"})
    assert s.head_object(Bucket=bucket, Key="b/two words.txt")["ContentLength"] == 5
    code("NoSuchKey", s.get_object, Bucket=bucket, Key="nothing")
    code("304", s.get_object, Bucket=bucket, Key="a/one.txt", IfNoneMatch=got["ETag"])
    big = os.urandom(9 << 20)
    with open("big", "wb") as f:
        f.write(big)
    s.upload_file("big", bucket, "c/big", Config=TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20))
    s.download_file(bucket, "c/big", "again")
    with open("again", "rb") as f:
        assert f.read() == big
    assert s.head_object(Bucket=bucket, Key="c/big")["ETag"].endswith('-2"')
    assert s.get_object_attributes(Bucket=bucket, Key="c/big", ObjectAttributes=["ObjectSize"])["ObjectSize"] == len(big)
    up = s.create_multipart_upload(Bucket=bucket, Key="c/parts")["UploadId"]
    s.upload_part_copy(Bucket=bucket, Key="c/parts", UploadId=up, PartNumber=1, CopySource={"Bucket": bucket, "Key": "c/big"}, CopySourceRange="bytes=0-99")
    assert [p["Size"] for p in s.list_parts(Bucket=bucket, Key="c/parts", UploadId=up)["Parts"]] == [100]
    assert [u["Key"] for u in s.list_multipart_uploads(Bucket=bucket)["Uploads"]] == ["c/parts"]
    s.abort_multipart_upload(Bucket=bucket, Key="c/parts", UploadId=up)
    code("NoSuchUpload", s.list_parts, Bucket=bucket, Key="c/parts", UploadId=up)
    s.put_object_tagging(Bucket=bucket, Key="a/one.txt", Tagging={"TagSet": [{"Key": "kind", "Value": "other"}]})
    s.delete_object_tagging(Bucket=bucket, Key="a/one.txt")
    assert s.get_object_tagging(Bucket=bucket, Key="a/one.txt")["TagSet"] == []
    post = s.generate_presigned_post(bucket, "d/form", Conditions=[["content-length-range", 1, 100]], ExpiresIn=60)
    body = b"".join(b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (k.encode(), v.encode()) for k, v in post["fields"].items())
    body += b'--x\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\nby a form\r\n--x--\r\n'
    with urllib.request.urlopen(urllib.request.Request(post["url"], data=body, headers={"Content-Type": "multipart/form-data; boundary=x"})) as r:
        assert r.status == 204
    assert s.get_object(Bucket=bucket, Key="d/form")["Body"].read() == b"by a form"
    s.delete_object(Bucket=bucket, Key="d/form")
    code("InvalidRange", s.get_object, Bucket=bucket, Key="a/one.txt", Range="bytes=100-")
    code("412", s.head_object, Bucket=bucket, Key="a/one.txt", IfMatch='"other"')
    page = s.list_objects_v2(Bucket=bucket, Delimiter="/")
    assert [p["Prefix"] for p in page["CommonPrefixes"]] == ["a/", "b/", "c/"] and "Contents" not in page, page
    url = s.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "d/signed"}, ExpiresIn=60)
    with urllib.request.urlopen(urllib.request.Request(url, data=b"by anyone", method="PUT")) as r:
        assert r.status == 200
    with urllib.request.urlopen(s.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "d/signed"})) as r:
        assert r.read() == b"by anyone"
    keys = [o["Key"] for p in s.get_paginator("list_objects_v2").paginate(Bucket=bucket, PaginationConfig={"PageSize": 2}) for o in p["Contents"]]
    assert keys == ["a/one.txt", "b/two words.txt", "c/big", "d/signed"], keys
    gone = s.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": k} for k in keys]})
    assert len(gone["Deleted"]) == 4 and "Contents" not in s.list_objects_v2(Bucket=bucket), gone


for part in (tables, streams, examples, queues, events, functions, files):
    part()
    print("ok", part.__name__, flush=True)
