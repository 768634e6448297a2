"""Drives a server with boto3: python3 calls.py ENDPOINT MODE. Fails by raising."""
import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

endpoint, mode = sys.argv[1:3]
ROLE = "arn:aws:iam::123456789012:role/reader"


def client(service, key, secret, token=None):
    return boto3.client(
        service, endpoint_url=endpoint, region_name="eu-west-1", aws_access_key_id=key,
        aws_secret_access_key=secret, aws_session_token=token, config=Config(parameter_validation=False, retries={"total_max_attempts": 1}),
    )


def session(service, credentials):
    return client(service, credentials["AccessKeyId"], credentials["SecretAccessKey"], credentials["SessionToken"])


def refused(code, status, call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        got = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
        assert got == (code, status), (got, error)
        return error.response["Error"]["Message"]
    raise AssertionError(code + " expected")


def verified():
    alice = client("sts", "AKIAALICEALICE000000", "alice-secret")
    who = alice.get_caller_identity()
    assert who["Arn"] == "arn:aws:iam::123456789012:user/alice" and who["Account"] == "123456789012", who
    refused("SignatureDoesNotMatch", 403, client("sts", "AKIAALICEALICE000000", "wrong").get_caller_identity)
    refused("InvalidClientTokenId", 403, client("sts", "AKIANOBODY0000000000", "wrong").get_caller_identity)

    reply = alice.assume_role(
        RoleArn=ROLE, RoleSessionName="me@work", DurationSeconds=900, SourceIdentity="alice", Tags=[{"Key": "team", "Value": "a&b"}],
        Policy='{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}',
    )
    assert reply["AssumedRoleUser"]["Arn"] == "arn:aws:sts::123456789012:assumed-role/reader/me@work", reply
    assert reply["SourceIdentity"] == "alice" and reply["PackedPolicySize"] > 0, reply
    assumed = session("sts", reply["Credentials"])
    who = assumed.get_caller_identity()
    assert who["Arn"] == reply["AssumedRoleUser"]["Arn"] and who["UserId"] == reply["AssumedRoleUser"]["AssumedRoleId"], who
    refused("AccessDenied", 403, assumed.get_session_token)
    stolen = dict(reply["Credentials"], SessionToken=reply["Credentials"]["SessionToken"][:-6] + "AAAAA=")
    refused("InvalidClientTokenId", 403, session("sts", stolen).get_caller_identity)

    bob = client("sts", "AKIABOBBOBBOB0000000", "bob-secret")
    message = refused("AccessDenied", 403, bob.assume_role, RoleArn=ROLE, RoleSessionName="bob")
    assert message == "User: arn:aws:iam::123456789012:user/bob is not authorized to perform: sts:AssumeRole on resource: " + ROLE, message
    refused("AccessDenied", 403, alice.assume_role, RoleArn=ROLE + "2", RoleSessionName="me")
    refused("ValidationError", 400, alice.assume_role, RoleArn=ROLE, RoleSessionName="not a name")
    refused("ValidationError", 400, alice.assume_role, RoleArn=ROLE, RoleSessionName="me", DurationSeconds=899)
    refused("ValidationError", 400, alice.assume_role, RoleArn=ROLE, RoleSessionName="me", DurationSeconds=7200)
    refused("MalformedPolicyDocument", 400, alice.assume_role, RoleArn=ROLE, RoleSessionName="me", Policy="{}")
    refused("InvalidAction", 400, alice.decode_authorization_message, EncodedMessage="x")

    mine = session("sts", alice.get_session_token(DurationSeconds=900)["Credentials"]).get_caller_identity()
    assert mine["Arn"].endswith(":user/alice"), mine
    assert alice.get_access_key_info(AccessKeyId="AKIABOBBOBBOB0000000")["Account"] == "123456789012"

    with open(sys.argv[3]) as file:
        token = file.read()
    web = alice.assume_role_with_web_identity(RoleArn=ROLE, RoleSessionName="web", WebIdentityToken=token)
    assert web["SubjectFromWebIdentityToken"] == "job-1" and web["Provider"] == "token.example.com", web
    assert session("sts", web["Credentials"]).get_caller_identity()["Arn"].endswith("/reader/web")
    refused("InvalidIdentityToken", 400, alice.assume_role_with_web_identity, RoleArn=ROLE, RoleSessionName="web", WebIdentityToken=token[:-8] + "AAAAAAAA")

    refused("AccessDenied", 403, client("iam", "AKIABOBBOBBOB0000000", "bob-secret").create_user, UserName="eve")
    manager = client("iam", "AKIAALICEALICE000000", "alice-secret")
    manager.create_user(UserName="carol")
    refused("EntityAlreadyExists", 409, manager.create_user, UserName="carol")
    manager.put_user_policy(UserName="carol", PolicyName="p", PolicyDocument='{"Statement":{"Effect":"Allow","Action":"iam:GetUser","Resource":"*"}}')
    assert manager.get_user_policy(UserName="carol", PolicyName="p")["PolicyDocument"]["Statement"]["Action"] == "iam:GetUser"
    key = manager.create_access_key(UserName="carol")["AccessKey"]
    carol = client("iam", key["AccessKeyId"], key["SecretAccessKey"])
    assert carol.get_user()["User"]["UserName"] == "carol"
    refused("AccessDenied", 403, carol.list_users)
    assert [k["Status"] for k in manager.list_access_keys(UserName="carol")["AccessKeyMetadata"]] == ["Active"]
    manager.update_access_key(UserName="carol", AccessKeyId=key["AccessKeyId"], Status="Inactive")
    refused("InvalidClientTokenId", 403, carol.get_user)
    refused("DeleteConflict", 409, manager.delete_user, UserName="carol")
    manager.delete_access_key(UserName="carol", AccessKeyId=key["AccessKeyId"])
    manager.delete_user_policy(UserName="carol", PolicyName="p")
    manager.delete_user(UserName="carol")
    refused("NoSuchEntity", 404, manager.get_user, UserName="carol")
    assert "carol" not in [u["UserName"] for u in manager.list_users()["Users"]]
    trust = '{"Statement":{"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"AWS":"123456789012"}}}'
    manager.create_role(RoleName="writer", AssumeRolePolicyDocument=trust)
    manager.put_role_policy(RoleName="writer", PolicyName="p", PolicyDocument='{"Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}')
    assert manager.list_role_policies(RoleName="writer")["PolicyNames"] == ["p"]
    assert manager.get_role(RoleName="writer")["Role"]["MaxSessionDuration"] == 3600
    manager.delete_role_policy(RoleName="writer", PolicyName="p")
    manager.delete_role(RoleName="writer")


def everybody():
    sts = client("sts", "999999999999", "whatever")
    assert sts.get_caller_identity()["Arn"] == "arn:aws:iam::999999999999:root"
    reply = sts.assume_role(RoleArn="arn:aws:iam::111111111111:role/path/any", RoleSessionName="me")
    who = session("sts", reply["Credentials"]).get_caller_identity()
    assert who["Arn"] == "arn:aws:sts::111111111111:assumed-role/any/me" and who["Account"] == "111111111111", who


{"verified": verified, "open": everybody}[mode]()
print("ok")
