"use strict";(()=>{try{let t=localStorage.getItem("campaign-streams.theme");(t==="dark"||t==="light")&&(document.documentElement.dataset.theme=t)}catch{}})();
