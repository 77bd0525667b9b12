// Runs before the page is painted, so that a chosen theme does not flash.
try {
  const chosen = localStorage.getItem("campaign-streams.theme");
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
} catch {
  // storage may be forbidden: then the system's theme holds
}
