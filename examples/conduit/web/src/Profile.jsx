import { Link, NavLink, useParams } from "react-router";
import { useUser } from "./App.jsx";
import { api } from "./api.js";
import { ArticleList, Errors, FollowButton, useAnswer } from "./parts.jsx";

export function Profile({ favorites }) {
  const { username } = useParams();
  const { user } = useUser();
  const [answer, error, setAnswer] = useAnswer(() => api.profile(username), [username]);
  if (!answer) return <div className="page"><Errors error={error} /></div>;
  const { profile } = answer;
  return (
    <>
      <div className="banner light">
        {profile.image && <img className="face" src={profile.image} alt="" />}
        <h1>{profile.username}</h1>
        <p>{profile.bio}</p>
        {user?.username === username ? <Link className="button" to="/settings">Edit Profile Settings</Link> : <FollowButton profile={profile} onChange={(p) => setAnswer({ profile: p })} />}
      </div>
      <div className="page">
        <nav className="tabs" aria-label="Articles">
          <NavLink end to={`/profile/${username}`}>My Articles</NavLink>
          <NavLink to={`/profile/${username}/favorites`}>Favorited Articles</NavLink>
        </nav>
        <ArticleList ask={(page) => api.articles({ ...page, [favorites ? "favorited" : "author"]: username })} deps={[username, favorites]} />
      </div>
    </>
  );
}
