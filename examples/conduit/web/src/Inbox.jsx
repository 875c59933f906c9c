import { Link, Navigate } from "react-router";
import { useUser } from "./App.jsx";
import { api } from "./api.js";
import { Errors, useAnswer } from "./parts.jsx";

export function Inbox() {
  const { user } = useUser();
  const [answer, error] = useAnswer(() => (user ? api.notices() : Promise.resolve({ notices: [] })), [user]);
  if (!user) return <Navigate to="/login" />;
  return (
    <div className="page narrow">
      <h1>Inbox</h1>
      <Errors error={error} />
      {answer?.notices.length === 0 && <p className="dim">Nobody has liked, commented or followed yet.</p>}
      <ul className="notices">
        {answer?.notices.map((n) => (
          <li key={n.at}>
            {n.slug ? <Link to={`/article/${n.slug}`}>{n.text}</Link> : n.text}
            <time className="dim" dateTime={n.at.slice(0, 24)}> {new Date(n.at.slice(0, 24)).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" })}</time>
          </li>
        ))}
      </ul>
    </div>
  );
}
