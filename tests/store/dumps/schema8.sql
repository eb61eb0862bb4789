-- A database of headwater 0.1.0 (schema 8), as `sqlite3 headwater.db .dump` gives it. Never edited.
BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0008');
CREATE TABLE api_keys (
	id INTEGER NOT NULL, 
	tailnet_id INTEGER NOT NULL, 
	prefix TEXT NOT NULL, 
	secret_hash TEXT NOT NULL, 
	created_at DATETIME NOT NULL, 
	scopes TEXT NOT NULL, 
	user_id INTEGER, 
	last_used_at DATETIME, 
	created_by TEXT NOT NULL, 
	description TEXT NOT NULL, 
	expires_at DATETIME, 
	PRIMARY KEY (id), 
	FOREIGN KEY(tailnet_id) REFERENCES tailnets (id), 
	FOREIGN KEY(user_id) REFERENCES users (id)
);
INSERT INTO "api_keys" VALUES(2,1,'0123456789ab','abababababababababababababababababababababababababababababababab','2026-11-30 18:00:00.000000','["policy_file:read","users"]',1,'2026-11-30 18:30:00.000000','local:socket','for the backup','2027-02-28 18:00:00.000000');
CREATE TABLE audit (
	id INTEGER NOT NULL, 
	tailnet_id INTEGER NOT NULL, 
	at DATETIME NOT NULL, 
	door TEXT NOT NULL, 
	"by" TEXT NOT NULL, 
	act TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	target INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	"before" TEXT NOT NULL, 
	"after" TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "audit" VALUES(1,1,'2026-11-30 10:00:00.000000','local','socket','user.set-role','user',1,'alice','{"role":"member"}','{"role":"network-admin"}','');
CREATE TABLE auth_keys (
	id INTEGER NOT NULL, 
	tailnet_id INTEGER NOT NULL, 
	prefix TEXT NOT NULL, 
	secret_hash TEXT NOT NULL, 
	created_at DATETIME NOT NULL, 
	user_id INTEGER, 
	tags TEXT NOT NULL, 
	reusable BOOLEAN NOT NULL, 
	ephemeral BOOLEAN NOT NULL, 
	expires_at DATETIME, 
	used_at DATETIME, 
	PRIMARY KEY (id), 
	FOREIGN KEY(tailnet_id) REFERENCES tailnets (id), 
	FOREIGN KEY(user_id) REFERENCES users (id)
);
INSERT INTO "auth_keys" VALUES(1,1,'abcdefghijkl','0000000000000000000000000000000000000000000000000000000000000000','2026-11-21 10:00:00.000000',NULL,'["tag:web"]',1,0,NULL,NULL);
CREATE TABLE credentials (
	id INTEGER NOT NULL, 
	tailnet_id INTEGER NOT NULL, 
	user_id INTEGER NOT NULL, 
	kind TEXT NOT NULL, 
	lookup TEXT NOT NULL, 
	created_at DATETIME NOT NULL, 
	name TEXT NOT NULL, 
	public_id BLOB NOT NULL, 
	public_key BLOB NOT NULL, 
	sign_count BIGINT NOT NULL, 
	expires_at DATETIME, 
	used_at DATETIME, 
	PRIMARY KEY (id), 
	FOREIGN KEY(tailnet_id) REFERENCES tailnets (id), 
	FOREIGN KEY(user_id) REFERENCES users (id)
);
INSERT INTO "credentials" VALUES(5,1,1,'passkey','fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210','2026-11-30 10:00:00.000000','Laptop',X'0102',X'A501',7,NULL,'2026-11-30 12:00:00.000000');
CREATE TABLE journal (
	tailnet_id INTEGER NOT NULL, 
	version INTEGER NOT NULL, 
	at DATETIME NOT NULL, 
	writer TEXT NOT NULL, 
	PRIMARY KEY (tailnet_id, version)
)
 WITHOUT ROWID

;
INSERT INTO "journal" VALUES(1,1,'2026-11-30 10:00:00.000000','box/77/0123456789abcdef');
INSERT INTO "journal" VALUES(1,2,'2026-11-30 18:20:38.998669','vm/21522/73bb08ea860270da');
CREATE TABLE last_seen (
	id INTEGER NOT NULL, 
	at DATETIME NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "last_seen" VALUES(1,'2026-11-21 12:00:00.000000');
CREATE TABLE nodes (
	id INTEGER NOT NULL, 
	tailnet_id INTEGER NOT NULL, 
	stable_id TEXT NOT NULL, 
	machine_key TEXT NOT NULL, 
	node_key TEXT NOT NULL, 
	name TEXT NOT NULL, 
	hostname TEXT NOT NULL, 
	created_at DATETIME NOT NULL, 
	user_id INTEGER, 
	tags TEXT NOT NULL, 
	disco_key TEXT, 
	ipv4 TEXT, 
	ipv6 TEXT, 
	hostinfo TEXT NOT NULL, 
	net_info TEXT, 
	endpoints TEXT NOT NULL, 
	home_derp BIGINT NOT NULL, 
	capver BIGINT NOT NULL, 
	expires_at DATETIME, 
	ephemeral BOOLEAN NOT NULL, 
	auth_key_id INTEGER, 
	register_method TEXT NOT NULL, 
	name_pinned BOOLEAN NOT NULL, 
	approved_routes TEXT NOT NULL, 
	lock_key TEXT, 
	key_signature BLOB NOT NULL, attributes TEXT DEFAULT '[]' NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(tailnet_id) REFERENCES tailnets (id), 
	FOREIGN KEY(user_id) REFERENCES users (id)
);
INSERT INTO "nodes" VALUES(1,1,'n1CNTRL','mkey:0101010101010101010101010101010101010101010101010101010101010101','nodekey:0202020202020202020202020202020202020202020202020202020202020202','laptop','Laptop','2026-11-21 10:00:00.000000',1,'[]','discokey:0303030303030303030303030303030303030303030303030303030303030303','100.64.0.1','fd7a:115c:a1e0::1','{"IPNVersion":"1.80.0","OS":"linux","Hostname":"Laptop"}','{"WorkingUDP":true,"PreferredDERP":900}','["192.0.2.1:41641","[2001:db8::1]:41641"]',900,113,'2027-01-02 03:04:05.678901',0,NULL,'cli',0,'[]',NULL,X'','[{"name":"custom:level","value":4},{"name":"custom:managed","value":true},{"name":"custom:team","value":"Bücher","expires_at":"2026-11-30T08:00:00.250000Z"},{"name":"ip:country","value":"DE"}]');
INSERT INTO "nodes" VALUES(2,1,'n2CNTRL','mkey:0404040404040404040404040404040404040404040404040404040404040404','nodekey:0505050505050505050505050505050505050505050505050505050505050505','server','srv','2026-11-21 10:00:00.000000',NULL,'["tag:web"]',NULL,NULL,NULL,'{}',NULL,'[]',0,0,NULL,1,1,'auth-key',0,'["10.0.0.0/8"]','nlpub:0606060606060606060606060606060606060606060606060606060606060606',X'00FF','[]');
CREATE TABLE oauth_clients (
	id INTEGER NOT NULL, 
	tailnet_id INTEGER NOT NULL, 
	prefix TEXT NOT NULL, 
	secret_hash TEXT NOT NULL, 
	created_at DATETIME NOT NULL, 
	scopes TEXT NOT NULL, 
	user_id INTEGER, 
	last_used_at DATETIME, 
	created_by TEXT NOT NULL, 
	description TEXT NOT NULL, 
	tags TEXT NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(tailnet_id) REFERENCES tailnets (id), 
	FOREIGN KEY(user_id) REFERENCES users (id)
);
INSERT INTO "oauth_clients" VALUES(1,1,'ba9876543210','cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd','2026-11-30 18:00:00.000000','["auth_keys"]',NULL,NULL,'local:socket','','["tag:web"]');
CREATE TABLE policies (
	id INTEGER NOT NULL, 
	tailnet_id INTEGER NOT NULL, 
	text TEXT NOT NULL, 
	created_at DATETIME NOT NULL, 
	source TEXT NOT NULL, 
	created_by TEXT NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(tailnet_id) REFERENCES tailnets (id)
);
INSERT INTO "policies" VALUES(2,1,'{"acls": []}','2026-11-21 10:30:00.000000','database','local:socket');
INSERT INTO "policies" VALUES(3,1,'// Für alle
{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}]}
','2026-11-22 11:00:00.000000','file','system:headwater');
CREATE TABLE schema_state (
	id INTEGER NOT NULL, 
	schema_version INTEGER NOT NULL, 
	oldest_reader INTEGER NOT NULL, 
	oldest_program TEXT NOT NULL, 
	written_by TEXT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "schema_state" VALUES(1,8,8,'0.1.0','0.1.0');
CREATE TABLE sequences (
	name TEXT NOT NULL, 
	last BIGINT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "sequences" VALUES('tailnets',1);
INSERT INTO "sequences" VALUES('users',1);
INSERT INTO "sequences" VALUES('auth_keys',1);
INSERT INTO "sequences" VALUES('nodes',7);
INSERT INTO "sequences" VALUES('policies',3);
INSERT INTO "sequences" VALUES('api_keys',2);
INSERT INTO "sequences" VALUES('oauth_clients',1);
INSERT INTO "sequences" VALUES('sessions',3);
INSERT INTO "sequences" VALUES('credentials',9);
CREATE TABLE sessions (
	id INTEGER NOT NULL, 
	tailnet_id INTEGER NOT NULL, 
	user_id INTEGER NOT NULL, 
	secret_hash TEXT NOT NULL, 
	method TEXT NOT NULL, 
	created_at DATETIME NOT NULL, 
	expires_at DATETIME NOT NULL, 
	last_used_at DATETIME NOT NULL, 
	login_expires_at DATETIME, 
	agent TEXT NOT NULL, 
	source TEXT NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(tailnet_id) REFERENCES tailnets (id), 
	FOREIGN KEY(user_id) REFERENCES users (id)
);
INSERT INTO "sessions" VALUES(3,1,1,'0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef','passkey','2026-11-30 10:00:00.000000','2026-12-07 10:00:00.000000','2026-11-30 12:00:00.000000',NULL,'Mozilla/5.0','192.0.2.7');
CREATE TABLE tailnets (
	id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	domain TEXT NOT NULL, 
	created_at DATETIME NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (name)
);
INSERT INTO "tailnets" VALUES(1,'default','tail.example','2026-11-21 10:00:00.000000');
CREATE TABLE users (
	id INTEGER NOT NULL, 
	tailnet_id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	created_at DATETIME NOT NULL, 
	display_name TEXT NOT NULL, 
	email TEXT NOT NULL, 
	profile_pic_url TEXT NOT NULL, 
	provider TEXT NOT NULL, 
	provider_id TEXT NOT NULL, role TEXT DEFAULT 'member' NOT NULL, issuer TEXT DEFAULT '' NOT NULL, subject TEXT DEFAULT '' NOT NULL, groups TEXT DEFAULT '[]' NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(tailnet_id) REFERENCES tailnets (id)
);
INSERT INTO "users" VALUES(1,1,'alice','2026-11-21 10:00:00.000000','Alice','alice@example.com','','','','network-admin','','','[]');
CREATE INDEX audit_by_tailnet ON audit (tailnet_id, id);
CREATE INDEX audit_by_time ON audit (at);
COMMIT;
