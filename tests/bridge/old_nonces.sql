BEGIN TRANSACTION;
CREATE TABLE buckets (
	number INTEGER NOT NULL,
	id VARCHAR NOT NULL,
	user VARCHAR NOT NULL,
	created BIGINT NOT NULL,
	name VARCHAR,
	storage FLOAT,
	transfer FLOAT,
	pubkeys JSON NOT NULL,
	PRIMARY KEY (number),
	UNIQUE (id),
	FOREIGN KEY(user) REFERENCES users (email)
);
CREATE TABLE file_shards (
	file INTEGER NOT NULL,
	position INTEGER NOT NULL,
	shard VARCHAR NOT NULL,
	PRIMARY KEY (file, position),
	FOREIGN KEY(file) REFERENCES files (number) ON DELETE CASCADE,
	FOREIGN KEY(shard) REFERENCES shards (hash)
);
CREATE TABLE files (
	number INTEGER NOT NULL,
	bucket VARCHAR NOT NULL,
	hash VARCHAR NOT NULL,
	filename VARCHAR NOT NULL,
	mimetype VARCHAR NOT NULL,
	size BIGINT NOT NULL,
	PRIMARY KEY (number),
	UNIQUE (bucket, hash),
	FOREIGN KEY(bucket) REFERENCES buckets (id) ON DELETE CASCADE
);
CREATE TABLE nonce_floors (
	owner VARCHAR NOT NULL,
	floor FLOAT NOT NULL,
	PRIMARY KEY (owner)
);
CREATE TABLE nonces (
	owner VARCHAR NOT NULL,
	nonce FLOAT NOT NULL,
	PRIMARY KEY (owner, nonce)
);
INSERT INTO "nonces" VALUES('alice@example.com',5.0);
INSERT INTO "nonces" VALUES('9997a497d964fc1a62885b05a51166a65a90df00492c8d7cf61d6accf54803be229885d507c0ad853f9f0002564d821be71ced82038b789fad0c71e28a022575',5.0);
INSERT INTO "nonces" VALUES('alice@example.com',7.0);
INSERT INTO "nonces" VALUES('9997a497d964fc1a62885b05a51166a65a90df00492c8d7cf61d6accf54803be229885d507c0ad853f9f0002564d821be71ced82038b789fad0c71e28a022575',7.0);
INSERT INTO "nonces" VALUES('alice@example.com',1.0e+300);
INSERT INTO "nonces" VALUES('9997a497d964fc1a62885b05a51166a65a90df00492c8d7cf61d6accf54803be229885d507c0ad853f9f0002564d821be71ced82038b789fad0c71e28a022575',1.0e+300);
CREATE TABLE pointers (
	token VARCHAR NOT NULL,
	shard VARCHAR NOT NULL,
	expires BIGINT NOT NULL,
	PRIMARY KEY (token)
);
CREATE TABLE public_keys (
	number INTEGER NOT NULL,
	"key" VARCHAR NOT NULL,
	user VARCHAR NOT NULL,
	PRIMARY KEY (number),
	UNIQUE ("key"),
	FOREIGN KEY(user) REFERENCES users (email)
);
INSERT INTO "public_keys" VALUES(1,'039997a497d964fc1a62885b05a51166a65a90df00492c8d7cf61d6accf54803be','alice@example.com');
CREATE TABLE shards (
	hash VARCHAR NOT NULL,
	object VARCHAR NOT NULL,
	size BIGINT NOT NULL,
	PRIMARY KEY (hash)
);
CREATE TABLE tokens (
	token VARCHAR NOT NULL,
	bucket VARCHAR NOT NULL,
	operation VARCHAR NOT NULL,
	expires BIGINT NOT NULL,
	PRIMARY KEY (token)
);
CREATE TABLE users (
	email VARCHAR NOT NULL,
	password VARCHAR NOT NULL,
	created BIGINT NOT NULL,
	activation VARCHAR,
	PRIMARY KEY (email),
	UNIQUE (activation)
);
INSERT INTO "users" VALUES('alice@example.com','scrypt$16384$8$1$d0a92bf3f4ca622356696d659fde13d3$449d564d17c21a82f18f020386fac95ea3b973577c91922d02536d73296a5c766bc9af2aadcdbf5186c304cd1833c78d36332fab160183da95626260c5e2a005',1795699738042,NULL);
CREATE INDEX ix_tokens_expires ON tokens (expires);
CREATE INDEX ix_pointers_expires ON pointers (expires);
CREATE INDEX ix_shards_object ON shards (object);
CREATE INDEX ix_public_keys_user ON public_keys (user);
CREATE INDEX ix_buckets_user ON buckets (user);
CREATE INDEX ix_file_shards_shard ON file_shards (shard);
COMMIT;
