// The documentation page in a real browser: it loads nothing from elsewhere, and an operation can be tried out from it.
import assert from "node:assert/strict";
import puppeteer from "puppeteer-core";

const { CODERDB_URL, CODERDB_TOKEN, CHROMIUM } = process.env;
const browser = await puppeteer.launch({ executablePath: CHROMIUM, args: ["--no-sandbox", "--disable-gpu"] });
try {
  const page = await browser.newPage();
  const elsewhere = [];
  const faults = [];
  page.on("request", (request) => {
    if (!request.url().startsWith(CODERDB_URL) && !request.url().startsWith("data:")) elsewhere.push(request.url());
  });
  page.on("pageerror", (error) => faults.push(String(error)));
  page.on("console", (message) => message.type() === "error" && faults.push(message.text()));

  await page.goto(`${CODERDB_URL}/docs/`);
  await page.waitForSelector(".opblock");
  assert.equal((await page.$$(".opblock")).length, 18);

  await page.click(".btn.authorize");
  await page.waitForSelector("#api_key_value");
  await page.type("#api_key_value", CODERDB_TOKEN);
  // There is another form for the same token as Bearer.
  await page.$eval("#api_key_value", (input) => input.closest("form").querySelector(".authorize").click());
  await page.waitForFunction(() => [...document.querySelectorAll(".modal-btn.auth")].some((it) => it.textContent === "Logout"));
  await page.click(".btn-done");

  const operation = "#operations-Enterprise-get-workspace-quota-by-user";
  await page.click(`${operation} .opblock-summary-control`);
  await page.waitForSelector(`${operation} .try-out__btn`);
  await page.click(`${operation} .try-out__btn`);
  const [organization, user] = await page.$$(`${operation} .parameters input`);
  await organization.type("coder");
  await user.type("dave");
  await page.click(`${operation} .execute`);
  await page.waitForSelector(`${operation} .live-responses-table .response-col_status`);
  const status = await page.$eval(`${operation} .live-responses-table .response .response-col_status`, (it) => it.innerText);
  const body = await page.$eval(`${operation} .live-responses-table .response .highlight-code code`, (it) => it.innerText);
  assert.equal(status.trim().slice(0, 3), "200");
  assert(JSON.parse(body).budget > 0, body);
  assert.deepEqual([elsewhere, faults], [[], []]);
  console.log(`tried out from the page: ${JSON.stringify(JSON.parse(body))}`);
} finally {
  await browser.close();
}
