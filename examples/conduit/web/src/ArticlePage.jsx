import { useState } from "react";
import Markdown from "react-markdown";
import { Link, useNavigate, useParams } from "react-router";
import { useUser } from "./App.jsx";
import { api } from "./api.js";
import { Errors, FavoriteButton, FollowButton, Meta, Tags, useAnswer } from "./parts.jsx";

export function ArticlePage() {
  const { slug } = useParams();
  const { user } = useUser();
  const navigate = useNavigate();
  const [answer, error, setAnswer] = useAnswer(() => api.article(slug), [slug]);
  if (!answer) return <div className="page"><Errors error={error} /></div>;
  const { article } = answer;
  const set = (a) => setAnswer({ article: a });
  const remove = async () => {
    await api.remove(slug);
    navigate("/");
  };
  return (
    <>
      <div className="banner dark">
        <div className="page">
          <h1>{article.title}</h1>
          <Meta article={article}>
            {user?.username === article.author.username ? (
              <>
                <Link className="button" to={`/editor/${slug}`}>Edit Article</Link>
                <button onClick={remove}>Delete Article</button>
              </>
            ) : (
              <>
                <FollowButton profile={article.author} onChange={(author) => set({ ...article, author })} />
                <FavoriteButton long article={article} onChange={set} />
              </>
            )}
          </Meta>
        </div>
      </div>
      <div className="page">
        <div className="body">
          <Markdown>{article.body}</Markdown>
        </div>
        <Tags tags={article.tagList} />
        <hr />
        <Comments slug={slug} />
      </div>
    </>
  );
}

function Comments({ slug }) {
  const { user } = useUser();
  const [answer, error, setAnswer] = useAnswer(() => api.comments(slug), [slug]);
  const [failed, setFailed] = useState(null);
  if (!answer) return <Errors error={error} />;
  const { comments } = answer;
  const add = async (data) => {
    try {
      const { comment } = await api.comment(slug, data.get("body"));
      setAnswer({ comments: [comment, ...comments] });
    } catch (e) {
      setFailed(e);
    }
  };
  const remove = async (id) => {
    await api.uncomment(slug, id);
    setAnswer({ comments: comments.filter((c) => c.id !== id) });
  };
  return (
    <section className="narrow" aria-label="Comments">
      <Errors error={failed} />
      {user ? (
        <form action={add}>
          <textarea name="body" rows="3" placeholder="Write a comment..." aria-label="Write a comment..." required />
          <button className="main">Post Comment</button>
        </form>
      ) : (
        <p>
          <Link to="/login">Sign in</Link> or <Link to="/register">sign up</Link> to add comments on this article.
        </p>
      )}
      {comments.map((c) => (
        <div className="comment" key={c.id}>
          <p>{c.body}</p>
          <Meta article={c}>{user?.username === c.author.username && <button onClick={() => remove(c.id)}>Delete</button>}</Meta>
        </div>
      ))}
    </section>
  );
}
