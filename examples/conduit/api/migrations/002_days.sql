create table days (
	day date primary key,
	users bigint not null,
	articles bigint not null,
	comments bigint not null
);
