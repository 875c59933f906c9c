import { useState } from "react";
import { useUser } from "./App.jsx";
import { api } from "./api.js";
import { ArticleList, Tags, useAnswer } from "./parts.jsx";

export function Home() {
  const { user } = useUser();
  const [tab, setTab] = useState(user ? "feed" : "all");
  const [tag, setTag] = useState(null);
  const [tags] = useAnswer(api.tags, []);
  const ask = tab === "feed" ? api.feed : (page) => api.articles({ ...page, tag: tab === "tag" ? tag : undefined });
  const tabs = [...(user ? [["feed", "Your Feed"]] : []), ["all", "Global Feed"], ...(tab === "tag" ? [["tag", `# ${tag}`]] : [])];
  return (
    <>
      {!user && (
        <div className="banner">
          <h1>conduit</h1>
          <p>A place to share your knowledge.</p>
        </div>
      )}
      <div className="page columns">
        <section>
          <div className="tabs" role="tablist">
            {tabs.map(([id, label]) => (
              <button key={id} role="tab" aria-selected={tab === id} onClick={() => setTab(id)}>
                {label}
              </button>
            ))}
          </div>
          <ArticleList ask={ask} deps={[tab, tag]} />
        </section>
        <aside>
          <h2>Popular Tags</h2>
          {tags && (
            <Tags
              tags={tags.tags}
              onPick={(t) => {
                setTag(t);
                setTab("tag");
              }}
            />
          )}
        </aside>
      </div>
    </>
  );
}
