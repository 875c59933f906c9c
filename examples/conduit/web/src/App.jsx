import { createContext, useContext, useEffect, useState } from "react";
import { NavLink, Route, Routes } from "react-router";
import { api, session } from "./api.js";
import { ArticlePage } from "./ArticlePage.jsx";
import { Auth } from "./Auth.jsx";
import { Editor } from "./Editor.jsx";
import { Home } from "./Home.jsx";
import { Inbox } from "./Inbox.jsx";
import { Profile } from "./Profile.jsx";
import { Settings } from "./Settings.jsx";

const User = createContext(null);

// useUser gives the signed-in user, or null, and how to sign in (a user) or out (null).
export const useUser = () => useContext(User);

export function App() {
  const [user, setUser] = useState(null);
  const [known, setKnown] = useState(!session.token);
  useEffect(() => {
    if (known) return;
    api
      .me()
      .then((a) => setUser(a.user), () => (session.token = null))
      .finally(() => setKnown(true));
  }, [known]);
  const sign = (u) => {
    session.token = u?.token;
    setUser(u);
  };
  if (!known) return null;
  return (
    <User value={{ user, sign }}>
      <Header user={user} />
      <main>
        <Routes>
          <Route path="/" element={<Home />} />
          <Route path="/login" element={<Auth key="in" />} />
          <Route path="/register" element={<Auth key="up" isNew />} />
          <Route path="/settings" element={<Settings />} />
          <Route path="/inbox" element={<Inbox />} />
          <Route path="/editor/:slug?" element={<Editor />} />
          <Route path="/article/:slug" element={<ArticlePage />} />
          <Route path="/profile/:username" element={<Profile />} />
          <Route path="/profile/:username/favorites" element={<Profile favorites />} />
          <Route path="*" element={<p className="page">There is no such page.</p>} />
        </Routes>
      </main>
      <footer>Conduit, an example of Tenfold.</footer>
    </User>
  );
}

function Header({ user }) {
  return (
    <header>
      <nav className="page" aria-label="Main">
        <NavLink className="brand" to="/">
          conduit
        </NavLink>
        <NavLink to="/">Home</NavLink>
        {user ? (
          <>
            <NavLink to="/editor">New Article</NavLink>
            <NavLink to="/inbox">Inbox</NavLink>
            <NavLink to="/settings">Settings</NavLink>
            <NavLink to={`/profile/${user.username}`}>{user.username}</NavLink>
          </>
        ) : (
          <>
            <NavLink to="/login">Sign in</NavLink>
            <NavLink to="/register">Sign up</NavLink>
          </>
        )}
      </nav>
    </header>
  );
}
