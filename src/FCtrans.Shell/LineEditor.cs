using System.Management.Automation;
using System.Management.Automation.Language;
using System.Management.Automation.Runspaces;
using System.Text;

namespace FCtrans.Shell;

/// <summary>
/// Reads one command from a terminal: editing keys, history, completion by the engine. Goes on with another
/// line while the text is an incomplete statement. Used by the main thread between pipelines only.
/// </summary>
internal sealed class LineEditor(Runspace runspace, ShellScreen screen)
{
    private readonly List<string> _history = [];
    private readonly StringBuilder _line = new();
    private int _cursor;
    private CommandCompletion? _completion;

    /// <returns>The command, or null at the end of input (Ctrl+D on an empty line).</returns>
    public string? Read(string prompt, string continuationPrompt)
    {
        var text = new StringBuilder();
        while (true)
        {
            string? line = ReadLine(text.Length == 0 ? prompt : continuationPrompt, out bool cancelled);
            if (cancelled)
            {
                return "";
            }

            if (line is null)
            {
                return text.Length == 0 ? null : text.ToString();
            }

            text.Append(line);
            _ = Parser.ParseInput(text.ToString(), out _, out ParseError[] errors);
            bool incomplete = errors.Any(static e => e.IncompleteInput);
            if (!incomplete || line.Length == 0)
            {
                string command = text.ToString();
                if (!string.IsNullOrWhiteSpace(command) && (_history.Count == 0 || _history[^1] != command))
                {
                    _history.Add(command);
                }

                return command;
            }

            text.Append('\n');
        }
    }

    private string? ReadLine(string prompt, out bool cancelled)
    {
        cancelled = false;
        _line.Clear();
        _cursor = 0;
        _completion = null;
        int historyAt = _history.Count;

        // While a line is edited Ctrl+C is a key; while a pipeline runs it is a signal that stops the pipeline.
        Console.TreatControlCAsInput = true;
        try
        {
            Draw(prompt);
            while (true)
            {
                ConsoleKeyInfo key = Console.ReadKey(intercept: true);
                bool control = (key.Modifiers & ConsoleModifiers.Control) != 0;
                if (key.Key != ConsoleKey.Tab)
                {
                    _completion = null;
                }

                switch (key.Key)
                {
                    case ConsoleKey.Enter:
                        _cursor = _line.Length;
                        Draw(prompt);
                        Console.WriteLine();
                        return _line.ToString();
                    case ConsoleKey.C when control:
                        Console.WriteLine("^C");
                        cancelled = true;
                        return null;
                    case ConsoleKey.D when control && _line.Length == 0:
                        Console.WriteLine();
                        return null;
                    case ConsoleKey.D when control:
                    case ConsoleKey.Delete:
                        if (_cursor < _line.Length)
                        {
                            _line.Remove(_cursor, 1);
                        }

                        break;
                    case ConsoleKey.Backspace:
                        if (_cursor > 0)
                        {
                            _line.Remove(--_cursor, 1);
                        }

                        break;
                    case ConsoleKey.LeftArrow:
                        _cursor = Math.Max(0, _cursor - 1);
                        break;
                    case ConsoleKey.RightArrow:
                        _cursor = Math.Min(_line.Length, _cursor + 1);
                        break;
                    case ConsoleKey.Home:
                    case ConsoleKey.A when control:
                        _cursor = 0;
                        break;
                    case ConsoleKey.End:
                    case ConsoleKey.E when control:
                        _cursor = _line.Length;
                        break;
                    case ConsoleKey.U when control:
                        _line.Remove(0, _cursor);
                        _cursor = 0;
                        break;
                    case ConsoleKey.K when control:
                        _line.Length = _cursor;
                        break;
                    case ConsoleKey.L when control:
                        Console.Clear();
                        break;
                    case ConsoleKey.UpArrow:
                        Recall(ref historyAt, -1);
                        break;
                    case ConsoleKey.DownArrow:
                        Recall(ref historyAt, +1);
                        break;
                    case ConsoleKey.Tab:
                        Complete((key.Modifiers & ConsoleModifiers.Shift) == 0);
                        break;
                    default:
                        if (key.KeyChar >= ' ')
                        {
                            _line.Insert(_cursor++, key.KeyChar);
                        }

                        break;
                }

                Draw(prompt);
            }
        }
        finally
        {
            Console.TreatControlCAsInput = false;
        }
    }

    private void Recall(ref int at, int step)
    {
        int wanted = at + step;
        if (wanted < 0 || wanted > _history.Count)
        {
            return;
        }

        at = wanted;
        _line.Clear();
        if (at < _history.Count)
        {
            _line.Append(_history[at]);
        }

        _cursor = _line.Length;
    }

    private void Complete(bool forward)
    {
        if (_completion is null)
        {
            using PowerShell shell = PowerShell.Create();
            shell.Runspace = runspace;
            _completion = CommandCompletion.CompleteInput(_line.ToString(), _cursor, null, shell);
        }

        if (_completion.GetNextResult(forward) is not { } result)
        {
            return;
        }

        _line.Remove(_completion.ReplacementIndex, _completion.ReplacementLength);
        _line.Insert(_completion.ReplacementIndex, result.CompletionText);
        _cursor = _completion.ReplacementIndex + result.CompletionText.Length;

        // The next Tab replaces what this one put there.
        _completion.ReplacementLength = result.CompletionText.Length;
    }

    /// <summary>One screen line: what doesn't fit scrolls sideways, so the cursor never leaves the line.</summary>
    private void Draw(string prompt)
    {
        string shownPrompt = prompt[(prompt.LastIndexOf('\n') + 1)..];
        int room = Math.Max(10, ((ShellRawScreen)screen.RawUI).Columns - shownPrompt.Length - 1);
        int first = Math.Max(0, _cursor - room);
        string visible = _line.ToString(first, Math.Min(room, _line.Length - first)).Replace('\n', ' ');
        var text = new StringBuilder("\r").Append(shownPrompt).Append(visible).Append("\e[K");
        int back = visible.Length - (_cursor - first);
        if (back > 0)
        {
            text.Append("\e[").Append(back).Append('D');
        }

        Console.Out.Write(text.ToString());
    }
}
