// Run in this folder: npm install node-llama-cpp; echo '{"text": "I have a cough."}' | node example.mjs
// A line a text; prints the label by the model's rule and the probabilities of ED, GP and HOME, of model.gguf in llama.cpp.
import { readFileSync } from "node:fs";
import { getLlama } from "node-llama-cpp";

const LABELS = ["ED", "GP", "HOME"];
const json = (file) => JSON.parse(readFileSync(file, "utf8"));
const [prompt, { rule, scaling }] = [json("prompt.json"), json("bundle.json")];
const lines = readFileSync(0, "utf8").split("\n").filter((line) => line.trim());
const softmax = (x) => x.map((a) => 1 / x.reduce((sum, b) => sum + Math.exp(b - a), 0));
const largest = (x) => LABELS[x.indexOf(Math.max(...x))];

const llama = await getLlama({ progressLogs: false, logLevel: "error" });
const model = await llama.loadModel({ modelPath: "model.gguf" });
const texts = lines.map((line) => model.tokenize(prompt.before + JSON.parse(line).text.trim() + prompt.after, true));
const contextSize = Math.max(prompt.max_tokens, ...texts.map((tokens) => tokens.length)) + 64; // of a longer text it loses the start
const sequence = (await model.createContext({ contextSize })).getSequence();
const withNext = { generateNext: { probabilities: true, options: { temperature: 1, topK: 0, topP: 1, minP: 0 } } };

for (const tokens of texts) {
  const logp = []; // log P(answer | prompt): of its tokens, each after the prompt and those before it
  for (const answer of prompt.answers) {
    const read = [...tokens, ...answer.slice(0, -1)].map((t, i) => (i < tokens.length - 1 ? t : [t, withNext]));
    await sequence.clearHistory();
    const next = (await sequence.controlledEvaluate(read)).slice(tokens.length - 1);
    logp.push(answer.reduce((sum, t, i) => sum + Math.log(next[i].next.probabilities.get(t)), 0));
  }
  const p = softmax(logp);

  const scaled = ({ temperature, biases }) => p.map((x, i) => Math.log(Math.max(x, 1e-12)) / temperature + biases[i]);
  let label = largest(rule.offsets ? scaled(rule.offsets) : p);
  if (rule.name === "target_recall") label = p[0] >= rule.threshold ? "ED" : p[1] >= p[2] ? "GP" : "HOME";
  if (rule.name === "min_cost") {
    const q = softmax(scaled(scaling));
    label = largest(LABELS.map((name) => -q.reduce((sum, x, i) => sum + x * rule.costs[LABELS[i]][name], 0)));
  }
  if (rule.note?.startsWith("not available")) label = null;
  console.log(label, JSON.stringify(p));
}
