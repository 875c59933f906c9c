import { useState } from "react";
import { Navigate, useNavigate, useParams } from "react-router";
import { useUser } from "./App.jsx";
import { api } from "./api.js";
import { Errors, useAnswer } from "./parts.jsx";

export function Editor() {
  const { slug } = useParams();
  const { user } = useUser();
  const navigate = useNavigate();
  const [failed, setFailed] = useState(null);
  const [answer, error] = useAnswer(() => (slug ? api.article(slug) : Promise.resolve({ article: {} })), [slug]);
  if (!user) return <Navigate to="/login" />;
  if (!answer) return <Errors error={error} />;
  const { title, description, body, tagList } = answer.article;
  const submit = async (data) => {
    const fields = Object.fromEntries(data);
    const tags = fields.tags.split(/[\s,]+/).filter(Boolean);
    try {
      const saved = await api.save(slug, { title: fields.title, description: fields.description, body: fields.body, tagList: tags });
      navigate(`/article/${saved.article.slug}`);
    } catch (e) {
      setFailed(e);
    }
  };
  return (
    <div className="page">
      <Errors error={failed} />
      <form action={submit}>
        <input name="title" placeholder="Article Title" aria-label="Article Title" defaultValue={title} required />
        <input name="description" placeholder="What's this article about?" aria-label="What's this article about?" defaultValue={description} required />
        <textarea name="body" rows="8" placeholder="Write your article (in markdown)" aria-label="Write your article (in markdown)" defaultValue={body} required />
        <input name="tags" placeholder="Enter tags" aria-label="Enter tags" defaultValue={tagList?.join(" ")} />
        <button className="main">Publish Article</button>
      </form>
    </div>
  );
}
