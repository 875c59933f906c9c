import { useEffect, useState } from "react";
import { Link, useNavigate } from "react-router";
import { useUser } from "./App.jsx";
import { api } from "./api.js";

// useAnswer calls ask whenever its dependencies change; the answer of an older call is dropped.
export function useAnswer(ask, deps) {
  const [state, setState] = useState({});
  useEffect(() => {
    let live = true;
    setState({});
    ask().then(
      (value) => live && setState({ value }),
      (error) => live && setState({ error }),
    );
    return () => {
      live = false;
    };
  }, deps);
  return [state.value, state.error, (value) => setState({ value })];
}

export function Errors({ error }) {
  return error ? <p className="error" role="alert">{error.message}</p> : null;
}

export function Meta({ article, children }) {
  const { author, createdAt } = article;
  return (
    <div className="meta">
      <Link to={`/profile/${author.username}`}>{author.username}</Link>
      <time dateTime={createdAt}>{new Date(createdAt).toLocaleDateString("en", { dateStyle: "long" })}</time>
      {children}
    </div>
  );
}

export function FavoriteButton({ article, onChange, long }) {
  const { user } = useUser();
  const navigate = useNavigate();
  const toggle = async () => {
    if (!user) return navigate("/login");
    onChange((await api.favorite(article.slug, !article.favorited)).article);
  };
  return (
    <button className={article.favorited ? "on" : ""} aria-pressed={article.favorited} onClick={toggle}>
      ♥ {long && (article.favorited ? "Unfavorite Article " : "Favorite Article ")}
      <span className="count">{article.favoritesCount}</span>
    </button>
  );
}

export function FollowButton({ profile, onChange }) {
  const { user } = useUser();
  const navigate = useNavigate();
  const toggle = async () => {
    if (!user) return navigate("/login");
    onChange((await api.follow(profile.username, !profile.following)).profile);
  };
  return (
    <button aria-pressed={profile.following} onClick={toggle}>
      {profile.following ? "Unfollow" : "Follow"} {profile.username}
    </button>
  );
}

export const PER_PAGE = 10;

export function ArticleList({ ask, deps }) {
  const [page, setPage] = useState(0);
  useEffect(() => setPage(0), deps);
  const [answer, error, setAnswer] = useAnswer(() => ask({ limit: PER_PAGE, offset: page * PER_PAGE }), [...deps, page]);
  if (error) return <Errors error={error} />;
  if (!answer) return <p className="dim">Loading articles…</p>;
  if (!answer.articles?.length) return <p className="dim">No articles are here… yet.</p>;
  const replace = (a) => setAnswer({ ...answer, articles: answer.articles.map((b) => (b.slug === a.slug ? a : b)) });
  const pages = Math.ceil(answer.articlesCount / PER_PAGE);
  return (
    <>
      {answer.articles.map((a) => (
        <article className="preview" key={a.slug}>
          <Meta article={a}>
            <FavoriteButton article={a} onChange={replace} />
          </Meta>
          <Link to={`/article/${a.slug}`}>
            <h2>{a.title}</h2>
            <p>{a.description}</p>
          </Link>
          <Tags tags={a.tagList} />
        </article>
      ))}
      {pages > 1 && (
        <nav className="pages" aria-label="Pages">
          <button disabled={page === 0} onClick={() => setPage(page - 1)}>Newer</button>
          <span>
            {page + 1} of {pages}
          </span>
          <button disabled={page + 1 >= pages} onClick={() => setPage(page + 1)}>Older</button>
        </nav>
      )}
    </>
  );
}

export function Tags({ tags, onPick }) {
  return (
    <ul className="tags">
      {tags.map((t) => (
        <li key={t}>{onPick ? <button onClick={() => onPick(t)}>{t}</button> : t}</li>
      ))}
    </ul>
  );
}
