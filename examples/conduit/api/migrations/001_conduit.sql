create table users (
	id bigint generated always as identity primary key,
	username text not null unique,
	email text not null unique,
	password bytea not null,
	bio text,
	image text
);

create table follows (
	follower bigint not null references users on delete cascade,
	followed bigint not null references users on delete cascade,
	primary key (follower, followed)
);
create index on follows (followed);

create table articles (
	id bigint generated always as identity primary key,
	slug text not null unique,
	author bigint not null references users on delete cascade,
	title text not null,
	description text not null,
	body text not null,
	tags text[] not null default '{}',
	created timestamptz not null default now(),
	updated timestamptz not null default now()
);
create index on articles (created desc, id desc);
create index on articles (author, created desc);
create index on articles using gin (tags);

create table favorites (
	reader bigint not null references users on delete cascade,
	article bigint not null references articles on delete cascade,
	primary key (reader, article)
);
create index on favorites (article);

create table comments (
	id bigint generated always as identity primary key,
	article bigint not null references articles on delete cascade,
	author bigint not null references users on delete cascade,
	body text not null,
	created timestamptz not null default now(),
	updated timestamptz not null default now()
);
create index on comments (article, created);
