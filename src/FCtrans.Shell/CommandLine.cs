namespace FCtrans.Shell;

/// <summary>What the command line asks for. The options are those of <c>pwsh</c>, so that scripts need not know which one runs them.</summary>
internal sealed class CommandLine
{
    public enum Action
    {
        Interactive,
        Command,
        File,
        StandardInput,
        Version,
        Help,
    }

    public Action What { get; private set; } = Action.Interactive;

    /// <summary>The script text of <c>-Command</c>, or the path of <c>-File</c>.</summary>
    public string Text { get; private set; } = "";

    /// <summary>What follows the file's name, as typed.</summary>
    public IReadOnlyList<string> Arguments { get; private set; } = [];

    public bool NoProfile { get; private set; }

    public bool NonInteractive { get; private set; }

    public bool NoExit { get; private set; }

    public bool NoLogo { get; private set; }

    public string? WorkingDirectory { get; private set; }

    /// <exception cref="ArgumentException">An unknown option, or one that lacks its value.</exception>
    public static CommandLine Parse(ReadOnlySpan<string> args)
    {
        var line = new CommandLine();
        for (int i = 0; i < args.Length; i++)
        {
            string arg = args[i];
            if (arg == "-")
            {
                line.What = Action.StandardInput;
                return line;
            }

            // A bare word is a script's path, as in pwsh.
            if (!arg.StartsWith('-'))
            {
                line.TakeFile(args[i..]);
                return line;
            }

            switch (arg.TrimStart('-').ToLowerInvariant())
            {
                case "command" or "c":
                    line.TakeCommand(args[(i + 1)..]);
                    return line;
                case "encodedcommand" or "e" or "ec":
                    line.What = Action.Command;
                    line.Text = System.Text.Encoding.Unicode.GetString(Convert.FromBase64String(Value(args, ref i)));
                    break;
                case "file" or "f":
                    line.TakeFile(args[(i + 1)..]);
                    return line;
                case "noprofile" or "nop":
                    line.NoProfile = true;
                    break;
                case "noninteractive" or "noni":
                    line.NonInteractive = true;
                    break;
                case "interactive" or "i":
                    line.NonInteractive = false;
                    break;
                case "noexit" or "noe":
                    line.NoExit = true;
                    break;
                case "nologo" or "nol":
                    line.NoLogo = true;
                    break;
                case "login" or "l":
                    break;
                case "executionpolicy" or "ep" or "ex" or "outputformat" or "of" or "o" or "inputformat" or "if":
                    // Accepted for scripts that pass them: there is no execution policy on Unix, and only text goes in and out.
                    _ = Value(args, ref i);
                    break;
                case "workingdirectory" or "wd":
                    line.WorkingDirectory = Value(args, ref i);
                    break;
                case "version" or "v":
                    line.What = Action.Version;
                    return line;
                case "help" or "h" or "?":
                    line.What = Action.Help;
                    return line;
                default:
                    throw new ArgumentException($"Unknown option '{arg}'. Run with -Help for the list.");
            }
        }

        return line;
    }

    private void TakeCommand(ReadOnlySpan<string> rest)
    {
        if (rest.IsEmpty)
        {
            throw new ArgumentException("-Command needs the text of a command, or '-' to read it from standard input.");
        }

        if (rest is ["-"])
        {
            What = Action.StandardInput;
            return;
        }

        What = Action.Command;
        Text = string.Join(' ', rest!);
    }

    private void TakeFile(ReadOnlySpan<string> rest)
    {
        if (rest.IsEmpty)
        {
            throw new ArgumentException("-File needs the path of a script, or '-' to read it from standard input.");
        }

        if (rest[0] == "-")
        {
            What = Action.StandardInput;
            return;
        }

        What = Action.File;
        Text = rest[0];
        Arguments = rest[1..].ToArray();
    }

    private static string Value(ReadOnlySpan<string> args, ref int i) =>
        ++i < args.Length ? args[i] : throw new ArgumentException($"'{args[i - 1]}' needs a value.");
}
