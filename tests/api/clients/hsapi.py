"""Does with PyPI's hsapi-client what it can do, and prints what came of it: URL and key as arguments.

Pre-auth keys it cannot: it takes their user for a text, which Headscale has not sent since 0.25, with a
key or with the node that came by one. Nor nodes that never expire or are tagged: it wants an expiry
and a user. Runs in an environment of its own, which has nothing of ours.
"""

# mypy: ignore-errors
# Its imports are not of our environment.

from __future__ import annotations

import json
import sys

from hsapi_client import Node, User
from hsapi_client.apikeys import APIKey, v1CreateApiKeyRequest, v1ExpireApiKeyRequest
from hsapi_client.config import APISettings, HTTPException
from hsapi_client.policies import Policy
from hsapi_client.users import v1CreateUserRequest

url, key = sys.argv[1:]
settings = APISettings(server=url, api_token=key)
told: dict[str, object] = {}

users, nodes = User(settings), Node(settings)
bob = users.create(v1CreateUserRequest(name="bob")).user
told["users"] = sorted(user.name for user in users.list().users)
told["renamed"] = users.rename(bob.id, "robert").user.name
users.delete(bob.id)

(node,) = nodes.list().nodes
told["node"] = [node.name, node.user.name, len(node.ipAddresses)]
told["node renamed"] = nodes.rename(node.id, "desk").node.givenName
nodes.expire(node.id)
nodes.delete(node.id)
told["nodes"] = len(nodes.list().nodes)

policies = Policy(settings)
policies.put('{"acls": []}')
told["policy"] = policies.get().policy

api_keys = APIKey(settings)
other = api_keys.create(v1CreateApiKeyRequest(expiration="2031-01-01T00:00:00Z")).apiKey
told["api keys"] = len(api_keys.list().apiKeys)
api_keys.expire(v1ExpireApiKeyRequest(prefix=other.split("-")[2]))
try:
    User(APISettings(server=url, api_token=other)).list()
except HTTPException as refusal:
    told["expired"] = refusal.status_code
api_keys.delete(other.split("-")[2])
print(json.dumps(told))
